# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The network behind a tap: how it is run again, for all or a part of the batch."""

import logging
import random
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .augmentation import FeatureAugmentation
from .batch import Batch
from .gradients import all_finite
from .guards import BatchNormGuard, anywhere, everywhere, no_autocast, without_dropout
from .loss_state import LossState
from .losses import Losses
from .recording import Recording, TapError
from .tap import Tap

logger = logging.getLogger('mmfeataug')


@dataclass
class Place:
    """A tap with the augmentations that use it, and what is known about its tail. Lives as long as
    the handle.

    Attributes:
        members: Augmentations with the names they are logged under.
        memoize: Whether replays use recorded results; False runs the whole network for each view.
        verified: Whether ``memoize`` has been checked.
        full_precision: Whether views run outside autocast, because its precision would swallow
            them.
        shapes: Of the features, for people to read.
        divisible: Whether views can be trained on a part of the batch, as far as is known; once
            False for good.
        divided: Whether ``divisible`` has been tried out.
    """

    tap: Tap
    members: list[tuple[str, FeatureAugmentation]] = field(default_factory=list)
    memoize: bool = True
    verified: bool = False
    full_precision: bool = False
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    divisible: bool = True
    divided: bool = False

    @property
    def live_prefix(self) -> bool:
        """See :class:`FeatureAugmentation`; all members have the same."""
        return self.members[0][1].live_prefix


@dataclass
class TailRunner:
    """Runs the tail of one place for one recorded batch.

    Attributes:
        movable: Indices of the recorded features that have a gradient; others (RoI coordinates,
            grids) are no features to a method.
        loss_state: Restores what losses keep between calls; ``state`` is how it was before the
            clean pass.
        scale: Factor of losses while gradients are taken, against fp16 underflow.
        overflow: Whether an attack's gradients were not finite under that factor.
    """

    model: nn.Module
    place: Place
    recording: Recording
    movable: list[int]
    batch: Batch
    loss_state: LossState
    state: Any
    scale: float
    overflow: bool = False

    @property
    def clean(self) -> list[Tensor]:
        """The features that a method may move, as recorded."""
        features = self.recording.features
        return [features[i] for i in self.movable]

    def total(self, losses: Losses) -> Tensor:
        """Total loss as the framework defines it."""
        return self.model.parse_losses(losses)[0]  # type: ignore[operator]

    @property
    def parts(self) -> range:
        """The numbers of samples, short of all, that a view can be trained on here; may be empty.
        What rules parts out is noted for good.
        """
        place, size = self.place, self.batch.size
        # What passed the tap beside the features comes back as it was recorded.
        others = [leaf for kept, _, _ in self.recording.structures for leaf in kept]
        place.divisible &= all(f.dim() and len(f) == size for f in self.recording.features) and all(
            isinstance(leaf, (int, float, str, type(None))) for leaf in others
        )
        # Pooled to one value a channel, a single sample cannot be normalised by itself.
        norms = any(isinstance(m, _BatchNorm) and m.training for m in self.model.modules())
        return range(1 + norms, size) if place.divisible and size else range(0)

    def part(self, samples: int, seed: int) -> list[int] | None:
        """Positions of that many samples in a row, but no fewer than possible, wrapping round at
        the end of the batch; None where the whole batch has to do. Alike on all processes.

        The first one is drawn: a plain rotation would never meet some where views come in every
        second iteration.
        """
        parts, like = self.parts, self.recording.features[0]
        samples = max(samples, parts.start)
        if not everywhere(samples in parts, like):
            return None
        first = random.Random(seed).randrange(parts.stop)
        part = [(first + i) % parts.stop for i in range(samples)]
        # Where one process tries it out, all do: the prefix may hold collectives.
        if anywhere(not self.place.divided, like):
            self.place.divisible = everywhere(self._arrives(part), like)
            self.place.divided = True
        return part if self.place.divisible else None

    @torch.no_grad()
    def _arrives(self, part: list[int]) -> bool:
        """Whether a pass of these samples brings to the tap what they had there in the clean pass,
        by its form: as many RoIs as images is chance.
        """
        recording, tap = self.recording, self.place.tap
        self.loss_state.restore(self.state)
        recording.random_at_start.restore()
        try:
            with BatchNormGuard(self.model) as norms, tap.record() as found:
                norms.apply('frozen')
                inputs = self.batch.pick(part)
                self.batch.loss(found.capture(inputs) if tap.module is None else inputs, part)
            shapes = [f.shape for f in found.features]
            expected = [(len(part), *f.shape[1:]) for f in recording.features]
            return shapes == expected and found.structures == recording.structures
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            logger.warning('tap at %s: views cannot have a part of the batch (%s)', tap, error)
            return False

    def losses(
        self,
        view: Sequence[Tensor],
        bn: str,
        grad: bool = True,
        memoize: bool | None = None,
        part: list[int] | None = None,
        separate: bool = False,
        drop: bool = True,
    ) -> Losses:
        """The stock losses from the tap on, with the random draws of the clean pass. What runs
        before the tap gets no gradient; on a part of the batch, as :meth:`part` gives it, it is run
        again, because nobody knows how recorded results are to be cut.
        """
        recording, place = self.recording, self.place
        features = recording.features
        for i, feature in zip(self.movable, view, strict=True):
            features[i] = feature
        if part is not None:
            features, memoize = [f[part] for f in features], False
        self.loss_state.restore(self.state)
        recording.random_at_start.restore()
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(grad and recording.live_prefix))
            if place.full_precision:
                stack.enter_context(no_autocast(features[0]))
            elif torch.is_autocast_enabled(features[0].device.type):
                # Casts of weights cached by an earlier pass belong to its graph, which is gone.
                torch.clear_autocast_cache()
            if not drop:
                stack.enter_context(without_dropout(self.model))
            norms = stack.enter_context(BatchNormGuard(self.model))
            norms.apply('frozen')

            def fire() -> None:
                torch.set_grad_enabled(grad)
                norms.apply(bn, separate)

            memoize = place.memoize if memoize is None else memoize
            replay = stack.enter_context(
                place.tap.replay(recording, features, fire, memoize, place.full_precision)
            )
            inputs = self.batch.pick(part) if place.tap.module is not None else replay.substitute()
            losses = self.batch.loss(inputs, part)
            if replay.occurrence != len(recording.structures):
                raise TapError(f'tap at {place.tap} was reached less often than in the clean pass')
            return losses

    def evaluate(
        self,
        features: Sequence[Tensor],
        augmentation: FeatureAugmentation,
        against: Sequence[str] = (),
        slopes: bool = True,
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradient toward the features, for an attack of this augmentation; without
        ``slopes`` the loss and nothing.

        Raises:
            ValueError: If no term of the loss has a name that holds a word of ``against``.
        """
        leaves = [f.detach().requires_grad_() for f in features]
        cast = leaves
        if not self.place.full_precision:
            cast = [leaf.to(c.dtype) for leaf, c in zip(leaves, self.clean, strict=True)]
        # An attack looks at the network, it does not teach its statistics.
        separate = augmentation.bn == 'separate'
        policy = augmentation.attack_bn
        losses = self.losses(cast, policy, slopes, separate=separate, drop=policy != 'eval')
        if against:
            chosen = {k: v for k, v in losses.items() if any(word in k for word in against)}
            if not any('loss' in k for k in chosen):
                terms = ', '.join(k for k in losses if 'loss' in k)
                raise ValueError(f'against={tuple(against)!r} names no term of the loss: {terms}')
            losses = chosen
        total = self.total(losses)
        if not slopes:
            return total, []
        gradients = self.gradient(total, leaves, 1.0)
        self.overflow |= self.scale != 1 and not all_finite(gradients)
        return total.detach(), [
            torch.zeros_like(leaf) if g is None else g / self.scale
            for leaf, g in zip(leaves, gradients, strict=True)
        ]

    def gradient(
        self, total: Tensor, toward: Sequence[Tensor], weight: float
    ) -> tuple[Tensor | None, ...]:
        """Gradient of ``scale * weight * total``; None for what it does not reach."""
        if not total.requires_grad:
            return (None,) * len(toward)
        with no_autocast(total):
            return torch.autograd.grad(
                total, toward, torch.full_like(total, weight * self.scale), allow_unused=True
            )

    def cast(self, view: list[Tensor], name: str) -> tuple[list[Tensor], Tensor | None]:
        """The view in the precision of the clean pass, and the share of moved elements that this
        puts back; or the view itself where that would be more than half.
        """
        clean, place = self.clean, self.place
        if place.full_precision or all(f.dtype == torch.float32 for f in clean):
            return view, None
        cast = [v.to(c.dtype) for v, c in zip(view, clean, strict=True)]
        moved = torch.stack(
            [(v != c.float()).sum() for v, c in zip(view, clean, strict=True)]
        ).sum()
        kept = torch.stack([(v != c).sum() for v, c in zip(cast, clean, strict=True)]).sum()
        lost = ((moved - kept) / moved.clamp(min=1)).float()
        if not everywhere(bool(lost > 0.5), lost):
            return cast, lost
        place.full_precision = True
        warnings.warn(
            f'{name} at {place.tap}: {clean[0].dtype} keeps only {1 - lost:.0%} of the perturbed '
            'elements; '
            'its views run in float32',
            stacklevel=2,
        )
        return view, lost
