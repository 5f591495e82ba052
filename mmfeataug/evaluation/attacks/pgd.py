# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Projected gradient ascent of the training loss, on images and features."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mmfeataug.engine import Tail, View
from mmfeataug.functional import (
    ascend,
    ascend_adaptively,
    cospgd_weights,
    deviation,
    l2_step,
    project_l2,
    project_linf,
    segpgd_weights,
    signed_step,
)
from mmfeataug.utils.pixels import PixelScale
from mmfeataug.utils.settings import non_negative, whole

from .base import Attack
from .pixel_loss import TERM, PixelLoss
from .space import Space

KINDS = ('pgd', 'apgd', 'segpgd', 'cospgd')
NORMS = ('linf', 'l2')
UNITS = ('pixel', 'absolute', 'std')


class PGD(Attack):
    """Projected gradient ascent of the training loss, from a random start in the ball.

    Points are offsets from the clean value in ``unit``, so steps and projections are the same for
    grey levels of three colours and for channels of any scale.

    Args:
        at, side: See :class:`FeatureAugmentation`.
        eps: Radius of the ball, in ``unit``.
        kind: ``'pgd'``: steps of one size, of which the last point is the result
            (https://arxiv.org/abs/1706.06083). ``'apgd'``: with momentum, and steps that are halved
            as :func:`mmfeataug.functional.ascend_adaptively` says; the point of the highest loss is
            the result. ``'segpgd'`` and ``'cospgd'``: steps of one size on the cross entropy at
            each pixel of a segmentor, weighted by
            :func:`mmfeataug.functional.segpgd_weights` and
            :func:`mmfeataug.functional.cospgd_weights`.
        steps: Number of steps.
        step_size: In ``unit``; None: ``2.5 * eps / steps``, or ``2 * eps`` as APGD's first.
        norm: ``'linf'``, or ``'l2'`` over all elements of an image or of its feature. A place that
            yields several tensors has one ball for each.
        unit: ``'pixel'``: grey levels of the raw image, 1/255 of its range, where it is not
            padding.
            ``'absolute'``: as the feature is. ``'std'``: standard deviations of the clean feature,
            see :func:`mmfeataug.functional.deviation`.
        against: Words in the names of the terms of the loss; empty: the whole loss.
        random_start: False starts from the clean value.
        start: Index of the random start.
        image_range: With ``'pixel'``: see :class:`mmfeataug.utils.pixels.PixelScale`.

    Raises:
        ValueError, TypeError: For invalid settings.
    """

    def __init__(
        self,
        *,
        at: str = 'inputs',
        side: str = 'output',
        eps: float,
        kind: str = 'pgd',
        steps: int = 10,
        step_size: float | None = None,
        norm: str = 'linf',
        unit: str = 'pixel',
        against: Sequence[str] = (),
        random_start: bool = True,
        start: int = 0,
        image_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(at=at, side=side)
        if kind not in KINDS:
            raise ValueError(f'kind={kind!r}: choose one of {", ".join(KINDS)}')
        whole('steps', steps)
        if norm not in NORMS:
            raise ValueError(f'norm={norm!r}: choose one of {", ".join(NORMS)}')
        if unit not in UNITS or (unit == 'pixel') != (at == 'inputs'):
            raise ValueError(
                f"unit={unit!r} at {at!r}: it is 'pixel' at 'inputs', 'absolute' or 'std' elsewhere"
            )
        if isinstance(against, str):
            raise TypeError(f'against={against!r}: give a list of words')
        self.weighted = kind in ('segpgd', 'cospgd')
        if against and self.weighted:
            raise ValueError(
                f'against={against!r}: {kind} weighs the pixels of the final prediction and has no '
                'terms; leave it out, or use pgd or apgd'
            )
        self.eps = non_negative('eps', eps, at)
        first = 2 * self.eps if kind == 'apgd' else 2.5 * self.eps / steps
        self.step_size = non_negative('step_size', first if step_size is None else step_size, at)
        self.kind, self.steps, self.norm, self.unit = kind, steps, norm, unit
        self.against, self.random_start, self.start = tuple(against), random_start, start
        self.image_range, self.alone = image_range, kind == 'apgd'
        self._pixels: PixelScale | None = None
        self._pixel_loss: PixelLoss | None = None

    def bind(self, model: nn.Module) -> None:
        """Learn the scale of pixels, and where a segmentor's loss is computed."""
        if self._pixels is None:
            # It learns its range from the first batch of the evaluation.
            self._pixels = PixelScale(model, self.image_range)
        if self.weighted and self._pixel_loss is None:
            self._pixel_loss = PixelLoss(model)

    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """The attacked features; see :meth:`FeatureAugmentation.views`."""
        spaces = [self._space(f) for f in features]
        step_in = signed_step if self.norm == 'linf' else l2_step
        numbers = itertools.count()

        def evaluate(offsets: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            points = [s.at(o) for s, o in zip(spaces, offsets, strict=True)]
            loss, found = self._climbed(tail, points, next(numbers))
            return loss, [s.grad(g) for s, g in zip(spaces, found, strict=True)]

        def move(
            offsets: Sequence[Tensor], grads: Sequence[Tensor], step: float = self.step_size
        ) -> list[Tensor]:
            pairs = zip(offsets, grads, strict=True)
            return self._bounded(spaces, [step_in(o, g, step) for o, g in pairs])

        start = [torch.zeros_like(f) for f in features]
        first = None
        if self.random_start:
            pixels = self.unit == 'pixel'
            draws = [self.images.draw(f, self.norm, pixels, self.start) for f in features]
            start = [s.confine(self.eps * d) for s, d in zip(spaces, draws, strict=True)]
        elif not self.against and not self.weighted:
            first = [s.grad(g) for s, g in zip(spaces, gradients, strict=True)]
        if self.kind == 'apgd':
            bounded = partial(self._bounded, spaces)

            def known(offsets: list[Tensor]) -> tuple[float, list[Tensor]]:
                loss, grads = evaluate(offsets)
                return float(loss), grads

            found = ascend_adaptively(start, known, move, bounded, self.steps, self.step_size)
        else:
            found = ascend(start, lambda o: evaluate(o)[1], move, self.steps, first)
        yield View([s.at(o) for s, o in zip(spaces, found, strict=True)], 1.0)

    def _climbed(
        self, tail: Tail, points: list[Tensor], number: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients in step ``number``."""
        if self._pixel_loss is None:
            return tail(points, self.against)

        def weigh(logits: Tensor, labels: Tensor, wrong: Tensor) -> Tensor:
            if self.kind == 'cospgd':
                return cospgd_weights(logits, labels)
            return segpgd_weights(wrong, number, self.steps)

        with self._pixel_loss.weighted(weigh):
            return tail(points, (TERM,))

    def _bounded(self, spaces: Sequence[Space], offsets: Sequence[Tensor]) -> list[Tensor]:
        project = project_linf if self.norm == 'linf' else project_l2
        # Bounds of pixels shorten offsets: what is in the ball stays there.
        return [
            s.confine(project(o, torch.zeros_like(o), self.eps))
            for s, o in zip(spaces, offsets, strict=True)
        ]

    def directions(
        self, features: Sequence[Tensor], gradients: Sequence[Tensor], seed: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Two perturbations of l-inf norm ``eps``: steepest ascent and random signs.

        Args:
            features: Clean ones.
            gradients: Of the loss toward them.
            seed: Of the signs.
        """
        spaces = [self._space(f) for f in features]
        generator = torch.Generator().manual_seed(seed)
        up = [(s.grad(g)).sign() for s, g in zip(spaces, gradients, strict=True)]
        draws = [torch.randint(0, 2, f.shape, generator=generator) * 2 - 1 for f in features]
        return (
            [self.eps * s.unit * u for s, u in zip(spaces, up, strict=True)],
            [self.eps * s.unit * d.to(f) for s, d, f in zip(spaces, draws, features, strict=True)],
        )

    def _space(self, feature: Tensor) -> Space:
        if self.unit != 'pixel':
            return Space(feature, deviation(feature) if self.unit == 'std' else 1.0)
        assert self._pixels is not None
        raw = self._pixels.raw(feature)
        # Images come in whole grey levels; rounding of the normalisation is taken off again.
        whole = raw.round()
        raw = torch.where((raw - whole).abs() < 1e-3, whole, raw)
        inside = self.images.inside(feature)
        return Space(feature, inside * self._pixels.level(feature), raw, self._pixels.preprocessed)
