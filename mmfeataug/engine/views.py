# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Views of features: asked for, run, and added to the objective or dropped.

Every process takes the same turns, or collectives inside the network (normalisers of mmdet's
losses, SyncBN) would leave some waiting. Per view there is one vote before it, where there are
several processes, and one behind it, where the host waits for a GPU, too.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmfeataug.functional import deviation

from .augmentation import FeatureAugmentation, Tail, View
from .gradients import finite_flag
from .guards import RunningStatistics, wide
from .objective import Objective
from .recorded_loss import RecordedTail
from .tap import FiringError, Member, Tap, TapError
from .tape import TermGradients
from .votes import on_all_ranks, on_all_ranks_packed, on_any_rank


def add_views(recorded_tail: RecordedTail, members: Sequence[Member], objective: Objective) -> None:
    """All views of augmentations at one tap.

    Args:
        recorded_tail: Behind the tap.
        members: Those that act, by name.
        objective: Gathers what comes out.

    Raises:
        RuntimeError: Around what a method raises, with its name and the tap.
    """
    clean = [wide(f) for f in recorded_tail.features]
    tap = recorded_tail.tap
    tap.shapes = [tuple(f.shape) for f in clean]
    for name, augmentation in members:
        objective.begin(name, clean[0])
        try:
            (usable,) = on_all_ranks([augmentation.accepts(clean)], clean[0])
            if usable:
                _add_each(recorded_tail, name, augmentation, clean, objective)
            else:
                objective.skip(name, clean[0])
        except (TapError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:
            raise RuntimeError(f'{name} failed at the tap {tap}: {error}') from error
        objective.overflow |= recorded_tail.overflow


def _add_each(
    recorded_tail: RecordedTail,
    name: str,
    augmentation: FeatureAugmentation,
    clean: list[Tensor],
    objective: Objective,
) -> None:
    reseed = partial(objective.seed_streams, name)
    tail = Tail(
        partial(_evaluate, recorded_tail, reseed, augmentation=augmentation),
        objective.generator(name, clean[0]),
        objective.shared_generator(name),
    )
    versions = [f._version for f in clean]
    reseed()
    views = iter(augmentation.views(list(clean), list(recorded_tail.gradients), tail))
    for index in itertools.count():
        view, failed = None, False
        reseed()
        try:
            view = next(views, None)
        except FiringError:
            # At the points of an attack, the pass went another way; there is no view.
            failed, views = True, iter(())
        if [f._version for f in clean] != versions:
            raise ValueError('it changes the clean features in place: change a copy')
        # A process without a view runs along on its clean features with weight 0.
        weight = float(failed)
        if view is not None:
            _check_view(view, index, clean)
            weight = objective.register_view(name, view.weight)
        is_left, counts = on_any_rank([view is not None or failed, bool(weight)], clean[0])
        if not is_left:
            return
        if counts:
            moved = clean if view is None else view.features
            _add_view(
                recorded_tail, name, index, augmentation, clean, moved, weight, failed, objective
            )
            # Not to live through the next one.
            del view, moved


def _evaluate(
    recorded_tail: RecordedTail, reseed: Callable[[], None], *args: Any, **kwargs: Any
) -> tuple[Tensor, list[Tensor]]:
    found = recorded_tail.evaluate(*args, **kwargs)
    reseed()
    return found


def _check_view(view: View, index: int, clean: Sequence[Tensor]) -> None:
    """Refuse what would be broadcast or cast without a word."""
    shapes = [tuple(f.shape) for f in view.features]
    expected = [tuple(f.shape) for f in clean]
    if shapes != expected or not all(f.is_floating_point() for f in view.features):
        raise ValueError(
            f'view {index} has features of shapes {shapes}; give a list of floating-point tensors '
            f'of shapes {expected}'
        )
    if view.weight is None:
        return
    if not isinstance(view.weight, (int, float)) or not math.isfinite(view.weight):
        raise ValueError(f'view {index} has weight={view.weight!r}: give a finite number')


def _add_view(
    tail: RecordedTail,
    name: str,
    index: int,
    augmentation: FeatureAugmentation,
    clean: list[Tensor],
    features: list[Tensor],
    weight: float,
    failed: bool,
    objective: Objective,
) -> None:
    """Train on a view, unless that is not finite, or ``failed``, on some process."""
    recorded, tap, bn = tail.recorded, tail.tap, augmentation.bn
    stats_before = RunningStatistics(recorded.model) if bn in ('shared', 'separate') else None
    is_finite = finite_flag(features, clean[0])
    if failed:
        is_finite = torch.zeros_like(is_finite)
    # No process may be told before the vote: those with a bad view run on the clean feature.
    features = [torch.where(is_finite, f, c) for f, c in zip(features, clean, strict=True)]
    cast, lost = _cast(tail, clean, features)
    while True:
        try:
            total, found = tail.train(cast, bn, augmentation.learn, weight)
        except FiringError:
            # With this view, the pass went another way.
            total, found = recorded.total, TermGradients([None] * len(recorded.parameters))
            is_finite = torch.zeros_like(is_finite)
        # Real data has batches whose loss is infinite and whose gradient is not (boxes without an
        # area).
        good = is_finite & (total.isfinite() | ~recorded.total.isfinite())
        if stats_before is not None:
            good &= finite_flag(stats_before.current, good)
        gradients_good = finite_flag(found.all(), good)
        kept = torch.ones_like(good) if cast is features or lost is None else lost <= 0.5
        votes = torch.stack([good & gradients_good, gradients_good, kept])
        finite, no_overflow, in_precision = on_all_ranks_packed(votes)
        if in_precision:
            break
        tap.full_precision, cast = True, features
        warnings.warn(
            f'{name} at {tap}: {tail.features[0].dtype} keeps less than half of the perturbed '
            'elements; its views run in float32',
            stacklevel=2,
        )
        if stats_before is not None:
            stats_before.restore()
    objective.overflow |= not no_overflow
    if stats_before is not None and not (finite and weight):
        stats_before.restore()
    if lost is not None or tap.full_precision:
        objective.log(f'{name}.lost_by_cast', total.new_zeros(()) if lost is None else lost)
    key = f'{name}.loss_{index}'
    if not finite:
        objective.drop(name, key, clean[0])
    elif weight:
        objective.add(key, weight * total, found)
        if not any(g is not None for g in found.all()):
            _warn_idle(tap, name, augmentation.learn)
        moved = [f.detach() for f in features]
        distance = relative_distance(clean, moved) if objective.plan.measure else None
        objective.count_view(name, weight, total, recorded.total, distance)
        if augmentation.observer is not None:
            augmentation.observer(clean, moved, index=index)
        for measure, value in perturbation_norms(clean, moved).items():
            objective.log(f'{name}.{measure}', value)


def _warn_idle(tap: Tap, name: str, learn: str) -> None:
    warnings.warn(
        f'{name} at {tap}: its views train nothing with learn={learn!r}, because no parameter that '
        "learns runs there; choose an earlier tap, or learn='network'",
        stacklevel=2,
    )


def _cast(
    tail: RecordedTail, clean: list[Tensor], view: list[Tensor]
) -> tuple[list[Tensor], Tensor | None]:
    """The view in the precision of the clean pass, and the share of moved elements that this puts
    back; None in full precision.
    """
    if tail.tap.full_precision or all(wide(f) is f for f in tail.features):
        return view, None
    cast = [v.to(f.dtype) for v, f in zip(view, tail.features, strict=True)]
    moved = torch.stack([(v != c).sum() for v, c in zip(view, clean, strict=True)]).sum()
    kept = torch.stack([(v != f).sum() for v, f in zip(cast, tail.features, strict=True)]).sum()
    return cast, ((moved - kept) / moved.clamp(min=1)).float()


def relative_distance(clean: list[Tensor], view: list[Tensor]) -> Tensor:
    """Root mean square of the perturbation in deviations of the clean feature."""
    moved = torch.stack([(v - c).square().sum() for v, c in zip(view, clean, strict=True)]).sum()
    spread = torch.stack([deviation(c).square().expand_as(c).sum() for c in clean]).sum()
    return (moved / spread.clamp(min=1e-12)).sqrt()


def perturbation_norms(clean: list[Tensor], view: list[Tensor]) -> dict[str, Tensor]:
    """Of the perturbation: l-inf norm, l2 norm (mean over samples), mean absolute shift of the
    channels' means.
    """
    deltas = [v - c for v, c in zip(view, clean, strict=True)]
    rows = [d.flatten(1) if d.dim() > 1 else d[None] for d in deltas]
    means = [
        d.flatten(2).mean((0, 2)) if d.dim() > 3 else d.flatten(0, -2).mean(0)
        for d in deltas
        if d.dim() > 1 and d.numel()
    ]
    norms = {
        'linf': torch.stack(
            [d.abs().max() if d.numel() else d.new_zeros(()) for d in deltas]
        ).max(),
        'l2': torch.stack([r.norm(dim=1).sum() / max(len(r), 1) for r in rows]).norm(),
    }
    if means:
        norms['shift'] = torch.stack([m.abs().mean() for m in means]).mean()
    return norms
