# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Losses over copies of the batch: asked for, run, and added to the objective or dropped."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .copies import Copies
from .gradients import finite_flag, scaled_gradients
from .guards import RunningStatistics, wide
from .objective import Objective
from .tap import FiringError, TapError
from .tape import Source, TermGradients
from .votes import on_all_ranks, on_all_ranks_packed


def add_copies(copies: Copies, objective: Objective) -> None:
    """All terms of one augmentation that looks at copies of the batch.

    Args:
        copies: Runs them.
        objective: Gathers what comes out.

    Raises:
        RuntimeError: Around what a method raises, with its name and places.
    """
    taps, recorded, clean = copies.taps, copies.recorded, copies.clean
    name, augmentation, size = taps.name, taps.augmentation, recorded.batch.size
    if not isinstance(recorded.batch.inputs, Tensor):
        raise TapError(
            f'{name} compares copies of one batch of images, and {type(recorded.model).__name__} '
            f'takes a {type(recorded.batch.inputs).__name__}: use one on features, such as AFAN'
        )
    # All terms together are one view: they share their passes. Their weight is their own, whatever
    # the others get for views that are missing; all views have been run by now.
    weight = objective.register_view(name, 1.0) / objective.fill
    if not weight:
        return
    reached = taps.is_reached(clean)
    enough = size is None or size >= augmentation.least_samples
    features = [wide(f.detach()) for f in taps.features(clean)]
    like = next(recorded.model.parameters())
    if not on_all_ranks([reached and enough], like)[0]:
        objective.skip(name, like)
        return
    if augmentation.online:
        features = [f.requires_grad_() for f in features]
    objective.begin(name, features[0])
    generator = objective.generator(name, features[0])
    copies.reseed()
    terms = iter(augmentation.losses(recorded.batch.inputs, features, copies, generator))
    through = list(zip(features, taps.sources(clean), strict=True)) if augmentation.online else []
    try:
        _add_terms(copies, terms, through, weight, objective)
    except (TapError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        raise RuntimeError(f'{name} failed at {taps}: {error}') from error


def _add_terms(
    copies: Copies,
    terms: Iterator[Tensor],
    through: Sequence[tuple[Tensor, Source | None]],
    weight: float,
    objective: Objective,
) -> None:
    name = copies.taps.name
    for index in itertools.count():
        stats_before = RunningStatistics(copies.model)
        good = torch.ones_like(copies.recorded.total, dtype=torch.bool)
        copies.reseed()
        gradients_good, value = good, None
        try:
            value = next(terms, None)
        except FiringError:
            # With other images, the pass went another way; nobody can use this term.
            good = ~good
        if value is not None:
            found = _gradients(value, weight * objective.scale, objective, through)
            gradients_good = finite_flag(found.all(), value)
            good = value.isfinite() & finite_flag(stats_before.current, value) & gradients_good
        votes = torch.stack([torch.full_like(good, value is None), good, gradients_good])
        nothing_left, usable, no_overflow = on_all_ranks_packed(votes)
        objective.overflow |= not no_overflow
        if not usable:
            stats_before.restore()
            objective.drop(name, f'{name}.loss_{index}', copies.recorded.total)
        elif value is not None:
            objective.add(f'{name}.loss_{index}', weight * value, found)
        if nothing_left:
            return


def _gradients(
    value: Tensor,
    scale: float,
    objective: Objective,
    through: Sequence[tuple[Tensor, Source | None]],
) -> TermGradients:
    """Gradient of ``scale * value`` toward the parameters, and what arrives at clean features.

    Args:
        value: Scalar.
        scale: Its factor.
        objective: Knows the parameters.
        through: Leaves that ``value`` depends on, and where the clean graph was cut at them.
    """
    parameters = objective.parameters
    if not value.requires_grad:
        return TermGradients([None] * len(parameters))
    count = len(parameters)
    found = scaled_gradients(value, [*parameters, *(leaf for leaf, _ in through)], scale)
    received = [
        (source, gradient)
        for (_, source), gradient in zip(through, found[count:], strict=True)
        if source is not None and gradient is not None
    ]
    return TermGradients(found[:count], received)
