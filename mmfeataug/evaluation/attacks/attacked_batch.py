# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A test batch under attack: its training loss as a function of the features at a place, and the
stock predictions from these features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.runner import set_random_seed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfeataug.engine import (
    Batch,
    LossState,
    RandomState,
    RecordedLoss,
    Tail,
    Tap,
    Tape,
    TapError,
    is_dropout,
    patched,
    record,
    replay,
    verify,
)
from mmfeataug.models import layers
from mmfeataug.utils.message_hub import message_hub
from mmfeataug.utils.pipelines import steps
from mmfeataug.utils.pixels import learn_pipeline

from .base import Attack, Clean, Images
from .geometry import Geometry
from .ground_truth import for_loss


class Target:
    """A place of a model to attack. Lives as long as an evaluation.

    Args:
        model: A detector, segmentor or classifier of OpenMMLab, without a wrapper.
        at: A dotted path, or ``'inputs'``.
        side: ``'output'`` or ``'input'`` of that module.
        seed: Of random starts and of random draws in losses (RoI samplers).
        geometry: Of the data set; see :func:`for_loss`.
    """

    def __init__(
        self,
        model: Any,
        at: str = 'inputs',
        side: str = 'output',
        seed: int = 0,
        geometry: Geometry | None = None,
    ) -> None:
        self.model, self.seed, self.geometry = model, seed, geometry
        if geometry is not None:
            learn_pipeline(model, steps(geometry.dataset))
        self.tap = Tap(model, at, side)
        # Another one for predictions: other modules run before it.
        self.outlet = Tap(model, at, side)
        self.loss_state = LossState(model, message_hub)

    @contextmanager
    def open(self, inputs: Tensor, samples: Sequence[Any]) -> Iterator['AttackedBatch']:
        """Context for the attack of one batch; it leaves the model and the random streams
        unchanged.

        Args:
            inputs: Images as the data preprocessor leaves them in a test.
            samples: Likewise.
        """
        streams = RandomState()
        images = Images.of(samples, self.seed, self.geometry)
        truth = for_loss(samples, inputs, self.model, self.geometry)
        recorded = None
        try:
            with as_in_training(self.model):
                set_random_seed(images.key(images.names))
                batch = Batch(self.model, self.model.loss, inputs, (list(truth),), {})
                with torch.enable_grad():
                    recorded = RecordedLoss(self.model, [self.tap], batch, state=self.loss_state)
                yield AttackedBatch(self, recorded, inputs, samples, images, truth)
        finally:
            if recorded is not None:
                recorded.rewind()
            streams.restore()


class AttackedBatch:
    """The loss of one batch, from a place on; made by :meth:`Target.open`.

    Attributes:
        features: What passes the place and moves the loss, clean.
        gradients: Of the whole loss toward them.
        loss: The whole loss, clean.
        truth: Data samples with ground truth where the network sees it.
        terms: Names of the terms of the loss.
    """

    def __init__(
        self,
        target: Target,
        recorded: RecordedLoss,
        inputs: Tensor,
        samples: Sequence[Any],
        images: Images,
        truth: Sequence[Any],
    ) -> None:
        self.truth, self._clean = truth, Clean(at=target.tap.at, side=target.tap.side)
        self.terms = [name for name in recorded.losses if 'loss' in name]
        self._target, self._recorded = target, recorded
        self._inputs, self._samples, self.images = inputs, samples, images
        if not recorded.fired:
            raise target.tap.not_reached_error()
        if not recorded.tails:
            raise TapError(
                f'at={target.tap.at!r}: the training loss does not depend on what passes this tap; '
                'choose a module on the way to the loss; if this one is, something cuts its '
                'gradient (detach, no_grad), and no attack of this kind says what the model is '
                'worth'
            )
        (self._tail,) = recorded.tails
        verify(self._tail, strict=False)
        self.features = [f.float() for f in self._tail.features]
        self.gradients = self._tail.gradients
        self.loss = float(recorded.total)

    @property
    def model(self) -> Any:
        """What is attacked."""
        return self._target.model

    def attack(self, attack: Attack) -> list[Tensor]:
        """The attacked features."""
        attack.images = self.images
        attack.bind(self._target.model)
        evaluate = partial(self._tail.evaluate, augmentation=attack)
        tail = Tail(evaluate, torch.Generator())
        (view,) = attack.views(self.features, self.gradients, tail)
        return [f.detach() for f in view.features]

    def loss_of(self, features: Sequence[Tensor], words: Sequence[str] = ()) -> float:
        """Sum of the terms of the loss with one of these words in their names; without words: the
        whole loss.
        """
        return float(self._tail.evaluate(features, self._clean, words)[0])

    @torch.no_grad()
    def total_at(self, features: Sequence[Tensor]) -> float:
        """The whole loss, without a gradient."""
        losses, _ = self._tail.losses(features, 'eval', grad=False)
        return float(self._recorded.total_of(losses))

    @torch.no_grad()
    def predict(self, features: Sequence[Tensor]) -> list[Any]:
        """What the stock ``predict`` returns if these features pass the place.

        Raises:
            TapError: If other features pass there in a prediction than in the loss.
        """
        target = self._target
        model, outlet = target.model, target.outlet
        with as_in_test(model):
            stock = Batch(
                model, partial(model, mode='predict'), self._inputs, (list(self._samples),), {}
            )
            if outlet.module is None:
                (images,) = features
                return stock.loss(images.to(self._inputs.dtype))  # type: ignore[return-value]
            with record(outlet, Tape()) as recording:
                stock.loss(self._inputs)
            passed = list(recording.features)
            expected = self._tail.recording.features
            if not _alike(passed, expected):
                raise TapError(
                    f'at={outlet.at!r}: what passes there in a prediction '
                    f'({_shapes(passed)}) is not what passes there in the training loss '
                    f'({_shapes(expected)}), so features attacked in the one have no place in the '
                    'other (RoI heads, windows of slide inference): choose a place of the backbone '
                    'or the neck'
                )
            for i, feature in zip(self._tail.movable, features, strict=True):
                passed[i] = feature.to(passed[i].dtype)
            # The prefix is run again: exact, and one pass beside many of the attack.
            with replay(recording, passed, _nothing, memoize=False):
                return stock.loss(self._inputs)  # type: ignore[return-value]


def rows_of(data: Mapping[str, Any], alone: bool) -> Iterator[slice]:
    """What to attack of a preprocessed batch in one go: all of it, or one image at a time."""
    count = len(data['data_samples'])
    size = 1 if alone else max(count, 1)
    for i in range(0, count, size):
        yield slice(i, i + size)


@contextmanager
def as_in_training(model: nn.Module) -> Iterator[None]:
    """Within this context modules are in training mode, because heads compute other things for a
    loss than for predictions, but for those that draw or look at the batch: batch norms, all kinds
    of dropout, and augmentations that are layers.
    """
    muted: list[Any] = [(layer, 'muted', lambda *_: True) for layer in layers(model)]
    with patched(muted), _modes(model, lambda m: not (isinstance(m, _BatchNorm) or is_dropout(m))):
        yield


def as_in_test(model: nn.Module) -> AbstractContextManager[None]:
    """Within this context all modules are in evaluation mode."""
    return _modes(model, lambda _: False)


@contextmanager
def _modes(model: nn.Module, trains: Callable[[nn.Module], bool]) -> Iterator[None]:
    # Not by train(): models freeze parameters there.
    before = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in before:
            module.training = trains(module)
        yield
    finally:
        for module, training in before:
            module.training = training


def _alike(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.allclose(x.float(), y.float(), rtol=1e-3, atol=1e-4)
        for x, y in zip(a, b, strict=True)
    )


def _shapes(features: Sequence[Tensor]) -> str:
    return ', '.join('x'.join(map(str, f.shape)) for f in features) or 'nothing'


def _nothing() -> None:
    pass
