# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""One augmented iteration: clean pass, views, weights and the returned losses meet here."""

import itertools
import logging
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .augmentation import Augmentation, Tail, View
from .batch import Batch
from .copies import Network, Seen, Watch, term_gradient
from .gradients import GradientSum, LossScale, all_finite
from .guards import RandomState, RunningStatistics, anywhere, everywhere, no_autocast
from .loss_state import LossState
from .losses import Losses, carry, detached, perturbation_norms, weighted
from .recording import Recording, TapError
from .tail import Place, TailRunner

logger = logging.getLogger('mmfeataug')


@dataclass(frozen=True)
class Choice:
    """One view among all.

    Attributes:
        name: Of the augmentation.
        index: Of the view.
        factor: Of its weight.
        samples: Number of samples of the batch to train it on, where the tap allows that; None is
            all. Methods see the features of all either way.
    """

    name: str
    index: int
    factor: float = 1.0
    samples: int | None = None


@dataclass
class Settings:
    """What stays the same from step to step, and what a step leaves for the next one."""

    clean_weight: float
    graph: bool
    strict: bool
    seed: int
    loss_scale: LossScale = field(default_factory=LossScale)
    loss_state: LossState | None = None
    teacher: dict[str, Tensor] | None = None


class Step:
    """One iteration. Everything that holds tensors lives here and goes with it.

    Args:
        model: In training mode.
        places: The active ones.
        settings: Of the handle.
        ramp: Factor of all view weights.
        iteration: For the methods' random draws.
        batch: The stock loss, and what it is called with.
        only: The one view to train on; None is all of them.
        watches: Of the active augmentations that look at copies of the batch.
        turn: Number of augmented iterations before this one.

    Attributes:
        weights: Of the views that the methods made, by name.
        parts: Numbers of samples, short of all, that these can be trained on, by name.
    """

    def __init__(
        self,
        model: nn.Module,
        places: list[Place],
        settings: Settings,
        ramp: float,
        iteration: int,
        batch: Batch,
        only: Choice | None = None,
        watches: Sequence[Watch] = (),
        turn: int = 0,
    ) -> None:
        self.model, self.places, self.settings = model, places, settings
        self.watches, self.turn = watches, turn
        self.ramp, self.iteration, self.batch, self.only = ramp, iteration, batch, only
        self.scale = settings.loss_scale.value if _autocast_is_fp16() else 1.0
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.collected = GradientSum(self.parameters)
        self.overflow = False
        self.views: Losses = {}
        self.weights: dict[str, list[float]] = {}
        self.parts: dict[str, range] = {}
        self.diagnostics: dict[str, Tensor] = {}

    def run(self) -> Losses:
        """The stock loss dict with the views' losses and diagnostics added."""
        settings = self.settings
        if settings.loss_state is None:
            settings.loss_state = LossState(self.model)
        state = settings.loss_state.save()
        losses, recordings, seen = self._clean_pass()
        state, state_after = settings.loss_state.learn(state, settings.loss_state.save())
        random_after = RandomState()
        try:
            slopes = self._differentiate(losses, recordings)
            clean = detached(losses)
            if not settings.graph:
                losses = clean
            for place, recording, toward in zip(self.places, recordings, slopes, strict=True):
                tail = TailRunner(
                    self.model,
                    place,
                    recording,
                    [i for i, g in enumerate(toward) if g is not None],
                    self.batch,
                    settings.loss_state,
                    state,
                    self.scale,
                )
                self._visit(tail, [g for g in toward if g is not None], clean)
            for watch, left in zip(self.watches, seen, strict=True):
                self._compare(watch, left, state)
        finally:
            # The next iteration draws and sees what it would after a stock call.
            settings.loss_state.restore(state_after)
            random_after.restore()
        return self._hand_over(losses)

    def _clean_pass(self) -> tuple[Losses, list[Recording], list[Seen]]:
        live = any(a.live_prefix for place in self.places for _, a in place.members)
        with ExitStack() as stack:
            recordings = [stack.enter_context(place.tap.record(live)) for place in self.places]
            seen = [stack.enter_context(watch.clean_pass()) for watch in self.watches]
            inputs = self.batch.inputs
            for recording in recordings:
                if recording.tap.module is None:
                    inputs = recording.capture(inputs)
            losses = self.batch.loss(inputs)
        for recording in recordings:
            if not recording.fired:
                raise recording.tap.silent()
        return losses, recordings, seen

    def _differentiate(
        self, losses: Losses, recordings: list[Recording]
    ) -> list[list[Tensor | None]]:
        """Gradient of the clean loss toward every tap and, in the same sweep, every parameter.
        Returns those toward the taps, fp32 and unscaled; the clean graph is gone afterwards unless
        it is to be kept.
        """
        graph, weight = (
            self.settings.graph,
            1.0 if self.settings.graph else self.settings.clean_weight,
        )
        total = self.model.parse_losses(losses)[0]  # type: ignore[operator]
        points = [handle for recording in recordings for handle in recording.handles]
        toward = points if graph else self.parameters + points
        gradients: Sequence[Tensor | None] = ()
        if toward:
            with no_autocast(total):
                gradients = torch.autograd.grad(
                    total,
                    toward,
                    torch.full_like(total, self.scale * weight),
                    retain_graph=graph or any(w.augmentation.online for w in self.watches),
                    allow_unused=True,
                )
        count = len(toward) - len(points)
        if not graph:
            self.collected.add(gradients[:count])
        slopes: list[list[Tensor | None]] = []
        rest = list(gradients[count:])
        for recording in recordings:
            recording.release()
            mine, rest = rest[: len(recording.handles)], rest[len(recording.handles) :]
            if all(g is None for g in mine):
                raise TapError(
                    f'at={recording.tap.at!r}: the training loss does not depend on what passes '
                    'this tap; '
                    'choose a module on the way to the loss'
                )
            slopes.append([None if g is None else g.float() / (self.scale * weight) for g in mine])
        return slopes

    def _visit(self, tail: TailRunner, slopes: list[Tensor], clean: Losses) -> None:
        """All views at one tap."""
        place = tail.place
        tail.verify(clean, self.settings.strict)
        features = [f.float() for f in tail.clean]
        place.shapes = [tuple(f.shape) for f in features]
        clean_is_finite = bool(tail.total(clean).isfinite())
        for name, augmentation in place.members:
            if not augmentation.active or (self.only and self.only.name != name):
                continue
            generator = self._generator(name, features[0])
            ask = Tail(partial(tail.evaluate, augmentation=augmentation), generator)
            self.diagnostics[f'{name}.dropped'] = features[0].new_zeros(())
            try:
                views = iter(augmentation.views(features, slopes, ask))
                for i in itertools.count():
                    view = next(views, None)
                    # A process without a view of its own runs along, or collectives inside the tail
                    # (normalisers of mmdet's losses, SyncBN) would leave the others waiting.
                    if not anywhere(view is not None, features[0]):
                        break
                    view = view or View(features, 0.0)
                    self.weights[name] = [*self.weights.get(name, []), view.weight]
                    weight = self.ramp * view.weight * self._share(name, i)
                    if anywhere(bool(weight), features[0]):
                        self._add(
                            tail, name, i, augmentation, view, weight, features, clean_is_finite
                        )
            except TapError:
                raise
            except Exception as error:
                raise RuntimeError(f'{name} failed at the tap {place.tap}: {error}') from error
            if parts := tail.parts:
                self.parts[name] = parts

    def _add(
        self,
        tail: TailRunner,
        name: str,
        index: int,
        augmentation: Augmentation,
        view: View,
        weight: float,
        clean: list[Tensor],
        clean_is_finite: bool,
    ) -> None:
        key = f'{name}.loss_{index}'
        bn, observer = augmentation.bn, augmentation.observer
        taught = RunningStatistics(self.model) if bn in ('shared', 'separate') else None
        # Every process takes the same turns, or collectives inside the tail would not meet.
        finite = everywhere(all_finite(view.features), clean[0])
        if finite:
            features, kept = tail.cast(view.features, name)
            if kept is not None:
                self.diagnostics[f'{name}.kept_by_cast'] = kept
            samples = self.only.samples if self.only else None
            part = None if samples is None else tail.part(samples, self._seed)
            total = tail.total(tail.losses(features, bn, part=part))
            # Real data has batches whose loss is infinite and whose gradient is not (boxes without
            # an area).
            finite = not clean_is_finite or bool(total.isfinite())
            finite &= taught is None or all_finite(taught.current)
            gradients: Sequence[Tensor | None] = ()
            if not self.settings.graph:
                gradients = tail.gradient(total, self.parameters, weight)
                finite &= self._fits(gradients)
            finite = everywhere(finite, total)
        if not finite:
            if taught is not None:
                taught.restore()
            self._drop(name, key, clean[0])
            return
        if not weight and taught is not None:
            taught.restore()
        if not self.settings.graph:
            if not weight:
                return
            self.collected.add(gradients)
            total = total.detach()
        self.views[key] = weight * total
        moved = [f.detach() for f in view.features]
        if observer is not None:
            observer(clean, moved, index=index)
        for measure, value in perturbation_norms(clean, moved).items():
            measure = f'{name}.{measure}'
            self.diagnostics[measure] = torch.maximum(self.diagnostics.get(measure, value), value)

    def _compare(self, watch: Watch, seen: Seen, state: Any) -> None:
        """All terms of one augmentation that looks at copies of the batch."""
        name, augmentation = watch.name, watch.augmentation
        assert self.settings.loss_state is not None
        # All terms together are one view: they share their passes.
        self.weights[name] = [1.0]
        weight = self.ramp * self._share(name, 0)
        enough = self.batch.size is None or self.batch.size >= augmentation.least_samples
        if not weight or not everywhere(enough, next(self.model.parameters())):
            return
        network = Network(
            self.model,
            watch,
            seen,
            self.batch,
            self.settings.loss_state,
            state,
            self.turn,
            self.settings.teacher,
        )
        handles = watch.features(seen)
        clean = [f.float() if augmentation.online else f.detach().float() for f in handles]
        if augmentation.online and not self.settings.graph:
            clean = [f.detach().requires_grad_() for f in clean]
        through = list(zip(clean, handles, strict=True)) if augmentation.online else []
        generator = self._generator(name, clean[0])
        self.diagnostics[f'{name}.dropped'] = clean[0].new_zeros(())
        taught = RunningStatistics(self.model)
        try:
            terms = augmentation.terms(self.batch.inputs, clean, network, generator)
            for i, value in enumerate(terms):
                key, gradients = f'{name}.loss_{i}', []
                finite = bool(value.isfinite()) and all_finite(taught.current)
                if not self.settings.graph:
                    gradients = term_gradient(value, weight * self.scale, self.parameters, through)
                    finite &= self._fits(gradients)
                if not everywhere(finite, value):
                    taught.restore()
                    self._drop(name, key, value)
                    continue
                if not self.settings.graph:
                    self.collected.add(gradients)
                    value = value.detach()
                self.views[key] = weight * value
        except TapError:
            raise
        except Exception as error:
            raise RuntimeError(f'{name} failed at {watch}: {error}') from error

    def _fits(self, gradients: Sequence[Tensor | None]) -> bool:
        """Whether they are finite; if not, the scale may have been too large."""
        finite = all_finite(gradients)
        self.overflow |= not finite
        return finite

    def _drop(self, name: str, key: str, like: Tensor) -> None:
        self.views[key] = like.new_zeros(())
        self.diagnostics[f'{name}.dropped'] += 1
        logger.warning('iteration %d: view %s is not finite and was dropped', self.iteration, key)

    def _hand_over(self, losses: Losses) -> Losses:
        terms = weighted(losses, self.settings.clean_weight)
        if not self.settings.graph:
            if self.scale != 1:
                finite = all_finite(self.collected.gradients) and not self.overflow
                self.settings.loss_scale.update(finite)
                self.collected.scale(1 / self.scale)
            carry(terms, self.collected)
        return {**terms, **self.views, **self.diagnostics}

    def _share(self, name: str, index: int) -> float:
        if self.only is None:
            return 1.0
        chosen = (self.only.name, self.only.index) == (name, index)
        return self.only.factor if chosen else 0.0

    @property
    def _seed(self) -> int:
        return self.settings.seed * 1_000_003 + self.iteration

    def _generator(self, name: str, like: Tensor) -> torch.Generator:
        return torch.Generator(like.device).manual_seed(self._seed ^ zlib.crc32(name.encode()))


def _autocast_is_fp16() -> bool:
    return any(
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
        for device in ('cuda', 'cpu')
    )
