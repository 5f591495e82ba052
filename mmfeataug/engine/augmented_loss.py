# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The one place where clean pass, views, weights and the returned losses meet."""

import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .augmentation import FeatureAugmentation, Tail, View
from .gradients import GradientSum, LossScale, all_finite
from .guards import BatchNormGuard, LossState, RandomState
from .tap import Recording, Tap, TapError

ENGINES = ('precomputed', 'graph')
Losses = dict[str, Any]
logger = logging.getLogger('mmfeataug')


@dataclass
class _Place:
    """A tap with the augmentations that use it, and how its tail is evaluated."""

    tap: Tap
    members: list[tuple[str, FeatureAugmentation]] = field(default_factory=list)
    memoize: bool = True
    verified: bool = False
    full_precision: bool = False
    shapes: list[tuple[int, ...]] = field(default_factory=list)


class AugmentedLoss:
    """Takes the place of ``model.loss`` while attached, and is the handle to take it off again.

    A call runs the stock loss once on the clean batch, then once more from each tap for every view, and returns the
    stock loss dict with one more loss a view. See ``docs/design.md`` for the order of an iteration.

    Args:
        model: A model with ``loss(inputs, data_samples)`` and ``parse_losses``, as mmengine's ``BaseModel``.
        augmentations: The methods, each with its place.
        clean_weight: Factor of the clean loss while views are active; positive.
        engine: ``'precomputed'`` takes gradients pass by pass; ``'graph'`` keeps one autograd graph of all passes.
        strict: Raise where a replay is not exact instead of falling back to a full re-run.
        seed: Of the methods' random draws.

    Attributes:
        enabled: False runs the stock loss alone.
        ramp: Factor of all view weights, for warm-up; 0 runs the stock loss alone.
        iteration: Counts calls; whoever resumes a run sets it.
        active: Whether the last call had views.
    """

    def __init__(
        self,
        model: nn.Module,
        augmentations: Sequence[FeatureAugmentation],
        *,
        clean_weight: float = 1.0,
        engine: str = 'precomputed',
        strict: bool = False,
        seed: int = 0,
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f'engine={engine!r}: choose one of {", ".join(ENGINES)}')
        if not clean_weight > 0:
            raise ValueError(
                f'clean_weight={clean_weight!r} must be positive: layers before a tap learn from the clean loss only'
            )
        if isinstance(getattr(model, 'loss', None), AugmentedLoss):
            raise RuntimeError('feature augmentations are attached to this model already: detach() them first')
        _refuse_model(model)
        self.model = model
        self.clean_weight, self.engine, self.strict, self.seed = clean_weight, engine, strict, seed
        self.enabled, self.ramp, self.iteration, self.active = True, 1.0, 0, False
        self._places = self._find_places(augmentations)
        self._scale = LossScale()
        self._state: LossState | None = None
        self._state_settled = False
        self._replaced = model.__dict__.get('loss')
        model.__dict__['loss'] = self

    def detach(self) -> None:
        """Give the model its stock loss back."""
        if self.model.__dict__.get('loss') is not self:
            return
        del self.model.__dict__['loss']
        if self._replaced is not None:
            self.model.__dict__['loss'] = self._replaced

    def __enter__(self) -> 'AugmentedLoss':
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    @property
    def stock_loss(self) -> Callable[..., Losses]:
        """What ``model.loss`` was before."""
        return self._replaced or type(self.model).loss.__get__(self.model)

    def describe(self) -> list[str]:
        """One line a tap: path, what uses it, shapes of the last active call, and how views run."""
        return [
            f'{", ".join(name for name, _ in place.members)} at {place.tap} '
            f'{place.shapes} by {"replay" if place.memoize else "full re-run"}'
            for place in self._places
        ]

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Losses:
        places = self._active_places()
        self.iteration += 1
        self.active = bool(places)
        if not places:
            return self.stock_loss(inputs, *args, **kwargs)
        return _Step(self, places, lambda x: self.stock_loss(x, *args, **kwargs)).run(inputs)

    def _active_places(self) -> list[_Place]:
        if not (self.enabled and self.ramp and self.model.training and torch.is_grad_enabled()):
            return []
        return [p for p in self._places if any(a.active for _, a in p.members)]

    def _find_places(self, augmentations: Sequence[FeatureAugmentation]) -> list[_Place]:
        places: dict[tuple[str, str], _Place] = {}
        names: dict[str, int] = {}
        for augmentation in augmentations:
            if not isinstance(augmentation, FeatureAugmentation):
                raise TypeError(
                    f'augmentations must hold FeatureAugmentation objects, got {type(augmentation).__name__}'
                )
            if augmentation.live_prefix and self.engine != 'graph':
                raise ValueError(
                    f"live_prefix=True at {augmentation.at!r} needs engine='graph', got engine={self.engine!r}"
                )
            key = augmentation.at, augmentation.side
            if key not in places:
                places[key] = _Place(Tap(self.model, *key))
            count = names[augmentation.name] = names.get(augmentation.name, 0) + 1
            name = augmentation.name if count == 1 else f'{augmentation.name}{count}'
            places[key].members.append((name, augmentation))
        return list(places.values())


class _Step:
    """One augmented iteration. Everything that holds tensors lives here and goes with it."""

    def __init__(self, owner: AugmentedLoss, places: list[_Place], run_stock: Callable[[Any], Losses]) -> None:
        self.owner, self.places, self.run_stock = owner, places, run_stock
        self.model = owner.model
        self.scale = owner._scale.value if _autocast_fp16() else 1.0
        self.views: Losses = {}
        self.diagnostics: dict[str, Tensor] = {}

    def run(self, inputs: Any) -> Losses:
        owner = self.owner
        self.inputs = inputs
        if owner._state is None:
            owner._state = LossState(self.model)
        self.state = owner._state.save()
        losses, recordings = self._clean_pass()
        if not owner._state_settled:
            self.state, owner._state_settled = owner._state.settle(self.state), True
        state_after, random_after = owner._state.save(), RandomState()
        try:
            return self._augment(losses, recordings)
        finally:
            # The next iteration draws and sees what it would after a stock call.
            owner._state.restore(state_after)
            random_after.restore()

    def _clean_pass(self) -> tuple[Losses, list[Recording]]:
        with ExitStack() as stack:
            live = self.owner.engine == 'graph' and any(
                a.live_prefix for p in self.places for _, a in p.members
            )
            recordings = [stack.enter_context(p.tap.record(live)) for p in self.places]
            inputs = self.inputs
            for recording in recordings:
                if recording.tap.module is None:
                    inputs = recording.capture(inputs)
            losses = self.run_stock(inputs)
        for recording in recordings:
            if not recording.fired:
                _refuse_silent_tap(recording.tap)
        return losses, recordings

    def _augment(self, losses: Losses, recordings: list[Recording]) -> Losses:
        owner, graph = self.owner, self.owner.engine == 'graph'
        total = self._total(losses)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        points = [handle for r in recordings for handle in r.handles]
        weight = owner.clean_weight
        with _no_autocast(total):
            gradients = torch.autograd.grad(
                total,
                points if graph else parameters + points,
                torch.full_like(total, self.scale * (1 if graph else weight)),
                retain_graph=graph,
                allow_unused=True,
            )
        count = 0 if graph else len(parameters)
        collected = GradientSum(parameters)
        collected.add(gradients[:count])
        toward = list(gradients[count:])
        del gradients
        factor = 1 / (self.scale * (1 if graph else weight))
        self.clean = {k: _detached(v) for k, v in losses.items()}
        for recording in recordings:
            recording.release()
        for place, recording in zip(self.places, recordings, strict=True):
            mine, toward = toward[: len(recording.handles)], toward[len(recording.handles) :]
            if all(g is None for g in mine):
                raise TapError(
                    f'at={place.tap.at!r}: the training loss does not depend on what passes this tap; '
                    'choose a module on the way to the loss'
                )
            slopes = [
                torch.zeros_like(f, dtype=torch.float32) if g is None else g.float() * factor
                for f, g in zip(recording.features, mine, strict=True)
            ]
            self._visit(place, recording, slopes, collected)
        if graph:
            return {**_weighted(losses, weight), **self.views, **self.diagnostics}
        if self.scale != 1:
            reached = [g for g in collected.gradients if g is not None]
            owner._scale.update(all_finite(reached))
            collected.scale(1 / self.scale)
        result = {**_weighted(self.clean, weight), **self.views, **self.diagnostics}
        return _carry(result, collected)

    def _visit(
        self, place: _Place, recording: Recording, slopes: list[Tensor], collected: GradientSum
    ) -> None:
        """All views at one tap."""
        memoize = self._verify(place, recording)
        place.shapes = [tuple(f.shape) for f in recording.features]
        clean = [f.float() for f in recording.features]
        for name, augmentation in place.members:
            if not augmentation.active:
                continue

            def evaluate(
                features: Sequence[Tensor], augmentation: FeatureAugmentation = augmentation
            ) -> tuple[Tensor, list[Tensor]]:
                return self._evaluate_tail(place, recording, features, augmentation.bn, memoize)

            tail = Tail(evaluate, self._generator(name, clean[0]))
            try:
                for i, view in enumerate(augmentation.views(clean, slopes, tail)):
                    self._add_view(place, recording, name, i, view, augmentation.bn, memoize, collected)
            except TapError:
                raise
            except Exception as error:
                raise RuntimeError(f'{name} failed at the tap {place.tap}: {error}') from error

    def _add_view(
        self,
        place: _Place,
        recording: Recording,
        name: str,
        index: int,
        view: View,
        bn: str,
        memoize: bool,
        collected: GradientSum,
    ) -> None:
        weight = view.weight * self.owner.ramp
        if weight == 0:
            return
        key = f'{name}.loss_{index}'
        clean = recording.features
        self.diagnostics.setdefault(f'{name}.dropped', clean[0].new_zeros((), dtype=torch.float32))
        if not all_finite(view.features):
            self._drop(name, key)
            return
        features, full_precision = self._cast(place, clean, view.features, name)
        losses = self._replay(place, recording, features, bn, memoize, full_precision=full_precision)
        total = self._total(losses)
        if self.owner.engine == 'graph':
            if not total.isfinite() and self._total(self.clean).isfinite():
                self._drop(name, key)
                return
            self.views[key] = weight * total
        else:
            gradients = self._gradient(total, collected.parameters, weight * self.scale)
            if not all_finite(gradients):
                self._drop(name, key)
                return
            collected.add(gradients)
            self.views[key] = weight * total.detach()
        self._measure(name, [f.float() for f in clean], view.features)

    def _drop(self, name: str, key: str) -> None:
        self.views[key] = torch.zeros_like(self.diagnostics[f'{name}.dropped'])
        self.diagnostics[f'{name}.dropped'] += 1
        logger.warning('iteration %d: view %s is not finite and was dropped', self.owner.iteration, key)

    def _measure(self, name: str, clean: list[Tensor], view: list[Tensor]) -> None:
        """Largest values over the views: l-inf and l2 norm (mean over samples) of the perturbation, and the mean
        absolute shift of the channels' batch means."""
        deltas = [v - c for v, c in zip(view, clean, strict=True)]
        samples = [d.flatten(1) if d.dim() > 1 else d[None] for d in deltas]
        shift = [d.flatten(2).mean((0, 2)) if d.dim() > 3 else d.flatten(0, -2).mean(0) for d in deltas if d.dim() > 1]
        values = {
            'linf': torch.stack([d.abs().max() for d in deltas]).max(),
            'l2': torch.stack([s.norm(dim=1).mean() for s in samples]).norm(),
        }
        if shift:
            values['shift'] = torch.stack([s.abs().mean() for s in shift]).mean()
        for key, value in values.items():
            key = f'{name}.{key}'
            self.diagnostics[key] = torch.maximum(self.diagnostics.get(key, value), value)

    def _cast(
        self, place: _Place, clean: list[Tensor], view: list[Tensor], name: str
    ) -> tuple[list[Tensor], bool]:
        """The view in the precision of the clean pass, or in fp32 if that precision would swallow it."""
        if place.full_precision or all(f.dtype == torch.float32 for f in clean):
            return view, place.full_precision
        cast = [v.to(c.dtype) for v, c in zip(view, clean, strict=True)]
        meant = sum((v != c.float()).sum() for v, c in zip(view, clean, strict=True))
        kept = sum((v != c).sum() for v, c in zip(cast, clean, strict=True))
        share = (kept / meant.clamp(min=1)).float()
        self.diagnostics[f'{name}.kept_by_cast'] = share
        if share >= 0.5:
            return cast, False
        place.full_precision = True
        warnings.warn(
            f'{name} at {place.tap}: {clean[0].dtype} keeps only {share:.0%} of the perturbed elements; '
            'its views run in float32',
            stacklevel=2,
        )
        return view, True

    def _evaluate_tail(
        self, place: _Place, recording: Recording, features: Sequence[Tensor], bn: str, memoize: bool
    ) -> tuple[Tensor, list[Tensor]]:
        leaves = [f.detach().requires_grad_() for f in features]
        cast = [leaf.to(c.dtype) for leaf, c in zip(leaves, recording.features, strict=True)]
        # An attack looks at the network, it does not teach its statistics.
        bn = 'eval' if bn == 'eval' else 'frozen'
        losses = self._replay(place, recording, cast, bn, memoize, full_precision=place.full_precision)
        total = self._total(losses)
        gradients = self._gradient(total, leaves, self.scale)
        return total.detach(), [
            torch.zeros_like(leaf) if g is None else g / self.scale
            for leaf, g in zip(leaves, gradients, strict=True)
        ]

    def _replay(
        self,
        place: _Place,
        recording: Recording,
        features: list[Tensor],
        bn: str,
        memoize: bool,
        grad: bool = True,
        full_precision: bool = False,
    ) -> Losses:
        """The stock loss from the tap on. What runs before the tap gets no gradient."""
        owner = self.owner
        owner._state.restore(self.state)
        recording.random_at_start.restore()
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(grad and recording.live_prefix))
            if full_precision:
                stack.enter_context(_no_autocast(features[0]))
            elif torch.is_autocast_enabled(features[0].device.type):
                # Casts of weights cached by an earlier pass belong to its graph, which is gone.
                torch.clear_autocast_cache()
            norms = stack.enter_context(BatchNormGuard(self.model))
            norms.apply('frozen')

            def fire() -> None:
                torch.set_grad_enabled(grad)
                norms.apply(bn)

            replay = stack.enter_context(place.tap.replay(recording, features, fire, memoize))
            inputs = self.inputs if place.tap.module is not None else replay.substitute()
            losses = self.run_stock(inputs)
            if replay.occurrence != len(recording.structures):
                raise TapError(f'tap at {place.tap} was reached less often than in the clean pass')
            return losses

    def _verify(self, place: _Place, recording: Recording) -> bool:
        """Replay once with the unchanged features; decide whether this tap may use what was recorded."""
        if place.verified:
            return place.memoize
        place.verified = True
        reason = f'it is called from inside {recording.foreign}' if recording.foreign else None
        if reason is None:
            version = recording.version()
            try:
                same = self._same(place, recording, memoize=True)
            except Exception as error:
                same, reason = False, f'{type(error).__name__}: {error}'
            if recording.version() != version and not place.tap.copy_records:
                # Something writes into recorded results. Keep copies from the next iteration on, and look again.
                place.tap.copy_records, place.verified = True, False
                return False
            if same:
                return True
            # A model that does not repeat itself is not the tap's fault.
            if reason is None and not self._same(place, recording, memoize=False):
                logger.warning('tap %s: the model gives another loss for the same batch and seed', place.tap)
                return True
        message = (
            f'tap at {place.tap}: a replay of recorded results is not exact '
            f'({reason or "the loss differs from the clean one"})'
        )
        if self.owner.strict:
            raise TapError(f'{message}; choose another tap or strict=False')
        warnings.warn(
            f'{message}; each view runs the whole network instead, at the cost of one more forward pass',
            stacklevel=2,
        )
        place.memoize = False
        return False

    def _same(self, place: _Place, recording: Recording, memoize: bool) -> bool:
        losses = self._replay(place, recording, recording.features, 'frozen', memoize, grad=False)
        return losses.keys() == self.clean.keys() and all(
            torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
            for key in losses
            for a, b in zip(_tensors(losses[key]), _tensors(self.clean[key]), strict=True)
        )

    def _generator(self, name: str, like: Tensor) -> torch.Generator:
        generator = torch.Generator(like.device)
        offset = sum(name.encode())
        return generator.manual_seed((self.owner.seed * 1_000_003 + self.owner.iteration) * 1009 + offset)

    def _total(self, losses: Losses) -> Tensor:
        return self.model.parse_losses(losses)[0]

    @staticmethod
    def _gradient(total: Tensor, toward: Sequence[Tensor], factor: float) -> tuple[Tensor | None, ...]:
        if not total.requires_grad:
            return (None,) * len(toward)
        with _no_autocast(total):
            return torch.autograd.grad(total, toward, torch.full_like(total, factor), allow_unused=True)


def _refuse_model(model: nn.Module) -> None:
    """Settings that cannot work with gradients taken inside the forward pass."""
    for method in ('loss', 'parse_losses'):
        if not callable(getattr(model, method, None)):
            raise TypeError(
                f'{type(model).__name__} has no {method}(): attach to a detector, segmentor or classifier of '
                'OpenMMLab (mmengine BaseModel), not to a part or a wrapper of it'
            )
    for name, module in model.named_modules():
        if getattr(module, 'with_cp', False):
            raise ValueError(
                f'with_cp=True in {name or "the model"}: reentrant checkpointing refuses gradients toward features; '
                'set with_cp=False'
            )
        if type(module).__name__ in ('FullyShardedDataParallel', 'MMFullyShardedDataParallel'):
            raise ValueError(
                f'{name or "the model"} is sharded by FSDP, which allows no backward pass inside the forward pass; '
                'use MMDistributedDataParallel'
            )


def _refuse_silent_tap(tap: Tap) -> None:
    children = [] if tap.module is None else [f'{tap.at}.{n}' for n, _ in tap.module.named_children()]
    raise TapError(
        f'at={tap.at!r}: this module was not called in the training pass; choose one that is, such as '
        f'{", ".join(children[:4]) or "its parent or a sibling"} '
        '(tools/analysis_tools/list_taps.py CONFIG prints every place)'
    )


def _no_autocast(like: Tensor) -> torch.autocast:
    return torch.autocast(like.device.type, enabled=False)


def _autocast_fp16() -> bool:
    return any(
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
        for device in ('cuda', 'cpu')
    )


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else [v.detach() for v in value]


def _weighted(losses: Losses, weight: float) -> Losses:
    if weight == 1:
        return dict(losses)
    return {
        key: value
        if 'loss' not in key
        else value * weight
        if isinstance(value, Tensor)
        else [v * weight for v in value]
        for key, value in losses.items()
    }


def _carry(losses: Losses, collected: GradientSum) -> Losses:
    """Hang the summed gradients on the first loss term; the others are constants by now."""
    for key, value in losses.items():
        if 'loss' in key and isinstance(value, Tensor):
            losses[key] = collected.attach_to(value)
            break
        if 'loss' in key and value:
            losses[key] = [collected.attach_to(value[0]), *value[1:]]
            break
    return losses
