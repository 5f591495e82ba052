# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Passes over other images than the batch's, and the terms that methods make of them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .batch import Batch
from .gradients import all_finite
from .guards import BatchNormGuard, RunningStatistics, everywhere, no_autocast, other_weights
from .loss_state import LossState
from .losses import Losses
from .recording import TapError
from .terms import Terms
from .watch import Seen, Watch


@dataclass
class Network:
    """What a :class:`BatchAugmentation` calls ``network``; one for each step.

    Attributes:
        model: In training mode.
        turn: Number of augmented iterations before this one.
        teacher: Averaged weights, by the names of ``model.state_dict()``; None without a teacher.
        passes: Number of those over copies so far, with the model's own weights.
        loss_state: Restores what losses keep between calls; ``state`` is how it was before the
            clean pass.
    """

    model: nn.Module
    watch: Watch
    clean: Seen
    batch: Batch
    loss_state: LossState
    state: Any
    turn: int
    teacher: dict[str, Tensor] | None
    passes: int = 0

    @property
    def samples(self) -> list[Any]:
        """Data samples of the batch; empty where they cannot be told apart."""
        return self.batch.samples

    @property
    def counts(self) -> list[int]:
        """Number of features at each place, in the order of the places."""
        return self.watch.counts(self.clean)

    def __call__(
        self,
        images: Tensor,
        *,
        loss: bool = False,
        samples: Sequence[Any] | None = None,
        weights: dict[str, Tensor] | None = None,
        bn: str | None = None,
    ) -> Any:
        """A pass with the random draws of the clean one.

        Args:
            images: In place of the batch's.
            loss: Run to the end; else no further than to the last place.
            samples: Data samples in place of the batch's.
            weights: To compute with, by the names of ``model.state_dict()``.
            bn: How batch norms treat the pass; None: as the augmentation says, but ``'eval'`` with
                other weights.

        Returns:
            The features at the places, fp32, in the autograd graph, and with ``loss`` the tuple
            ``(features, total training loss)``.
        """
        self.loss_state.restore(self.state)
        torch.clear_autocast_cache()
        policy = bn or (self.watch.augmentation.bn if weights is None else 'eval')
        losses: Losses = {}
        with BatchNormGuard(self.model) as norms, other_weights(self.model, weights or {}):
            norms.apply(policy)
            with self.watch.copy_pass(self.clean, stop=not loss) as seen:
                losses = self.batch.loss(images, samples=samples)
        features = [f.float() for f in self.watch.features(seen)]
        observer = self.watch.augmentation.observer
        if weights is None:
            if observer is not None:
                observer(self.watch.features(self.clean), features, images, self.passes)
            self.passes += 1
        if not loss:
            return features
        return features, self.model.parse_losses(losses)[0]  # type: ignore[operator]


def add_terms(network: Network, terms: Terms) -> None:
    """All terms of one augmentation that looks at copies of the batch.

    Args:
        network: Runs the copies.
        terms: Gathers what comes out.

    Raises:
        RuntimeError: Around what a method raises, with its name and places.
    """
    watch, model = network.watch, network.model
    name, augmentation, size = watch.name, watch.augmentation, network.batch.size
    # All terms together are one view: they share their passes.
    weight = terms.offer(name, 1.0)
    enough = size is None or size >= augmentation.least_samples
    if not weight or not everywhere(enough, next(model.parameters())):
        return
    handles = watch.features(network.clean)
    clean = [f.float() if augmentation.online else f.detach().float() for f in handles]
    if augmentation.online and not terms.graph:
        clean = [f.detach().requires_grad_() for f in clean]
    through = list(zip(clean, handles, strict=True)) if augmentation.online else []
    terms.begin(name, clean[0])
    generator = terms.generator(name, clean[0])
    values = iter(augmentation.terms(network.batch.inputs, clean, network, generator))
    try:
        for i in itertools.count():
            taught = RunningStatistics(model)
            value = next(values, None)
            if value is None:
                break
            key, gradients = f'{name}.loss_{i}', []
            finite = bool(value.isfinite()) and all_finite(taught.current)
            if not terms.graph:
                gradients = _gradient(value, weight * terms.scale, terms.parameters, through)
                finite &= terms.fit(gradients)
            if everywhere(finite, value):
                terms.add(key, value, weight, gradients)
            else:
                taught.restore()
                terms.drop(name, key, value)
    except TapError:
        raise
    except Exception as error:
        raise RuntimeError(f'{name} failed at {watch}: {error}') from error


def _gradient(
    value: Tensor,
    scale: float,
    parameters: Sequence[nn.Parameter],
    through: Sequence[tuple[Tensor, Tensor]],
) -> list[Tensor | None]:
    """Gradient of ``scale * value`` toward the parameters.

    Args:
        value: Scalar.
        scale: Its factor.
        parameters: Of the model.
        through: Leaves that ``value`` depends on, with the tensors in the graph of the clean pass
            that they stand for; what goes on from there to the parameters is added. That graph is
            kept.
    """
    if not value.requires_grad:
        return [None] * len(parameters)
    count = len(parameters)
    toward = [*parameters, *(leaf for leaf, _ in through)]
    with no_autocast(value):
        found = torch.autograd.grad(value, toward, torch.full_like(value, scale), allow_unused=True)
        slopes: list[Tensor | None] = list(found[:count])
        onward = [
            (handle, slope.to(handle.dtype))
            for (_, handle), slope in zip(through, found[count:], strict=True)
            if slope is not None and handle.requires_grad
        ]
        if onward:
            points, outer = zip(*onward, strict=True)
            more = torch.autograd.grad(
                points, parameters, outer, retain_graph=True, allow_unused=True
            )
            slopes = [
                a if b is None else b if a is None else a + b
                for a, b in zip(slopes, more, strict=True)
            ]
    return slopes
