# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Projected gradient ascent of the training loss, on images and features."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmfeataug.engine import Tail, View
from mmfeataug.functional import (
    ascend,
    deviation,
    l2_step,
    project_l2,
    project_linf,
    signed_step,
)
from mmfeataug.utils.pixels import PixelScale
from mmfeataug.utils.settings import non_negative

from .base import Attack

NORMS = ('linf', 'l2')
UNITS = ('pixel', 'absolute', 'std')


class PGD(Attack):
    """Projected gradient ascent of the training loss, from a random start in the ball.

    Points are counted as offsets from the clean value in ``unit``, so steps and projections are the
    same for grey levels of three colours and for channels of any scale. The last point is the
    result. Paper: https://arxiv.org/abs/1706.06083.

    Args:
        at, side: See :class:`FeatureAugmentation`.
        eps: Radius of the ball, in ``unit``.
        steps: Number of steps.
        step_size: In ``unit``; None: ``2.5 * eps / steps``.
        norm: ``'linf'``, or ``'l2'`` over all elements of an image or of its feature. A place that
            yields several tensors has one ball for each.
        unit: ``'pixel'``: grey levels of the raw image, 1/255 of its range, where it is not
            padding.
            ``'absolute'``: as the feature is. ``'std'``: standard deviations of the clean feature,
            see :func:`mmfeataug.functional.deviation`.
        against: Words in the names of the terms of the loss; empty: the whole loss.
        random_start: False starts from the clean value.
        image_range: With ``'pixel'``: see :class:`mmfeataug.utils.pixels.PixelScale`.

    Raises:
        ValueError, TypeError: For settings that cannot be.
    """

    def __init__(
        self,
        *,
        at: str = 'inputs',
        side: str = 'output',
        eps: float,
        steps: int = 10,
        step_size: float | None = None,
        norm: str = 'linf',
        unit: str = 'pixel',
        against: Sequence[str] = (),
        random_start: bool = True,
        image_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(at=at, side=side)
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f'steps={steps!r}: give a whole number of at least 1')
        if norm not in NORMS:
            raise ValueError(f'norm={norm!r}: choose one of {", ".join(NORMS)}')
        if unit not in UNITS or (unit == 'pixel') != (at == 'inputs'):
            raise ValueError(
                f"unit={unit!r} at {at!r}: it is 'pixel' at 'inputs', 'absolute' or 'std' elsewhere"
            )
        if isinstance(against, str):
            raise TypeError(f'against={against!r}: give a list of words')
        self.eps = non_negative('eps', eps, at)
        step = 2.5 * self.eps / steps if step_size is None else step_size
        self.step_size = non_negative('step_size', step, at)
        self.steps, self.norm, self.unit = steps, norm, unit
        self.against, self.random_start = tuple(against), random_start
        self.image_range = image_range
        self._pixels: PixelScale | None = None

    def bind(self, model: nn.Module) -> None:
        """Learn the scale of pixels."""
        if self._pixels is None:
            # It learns its range from the first batch of the evaluation.
            self._pixels = PixelScale(model, self.image_range)

    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """The attacked features; see :meth:`FeatureAugmentation.views`."""
        spaces = [self._space(f) for f in features]
        step, project = {
            'linf': (signed_step, project_linf),
            'l2': (l2_step, project_l2),
        }[self.norm]

        def gradients_at(offsets: list[Tensor]) -> list[Tensor]:
            points = [s.at(o) for s, o in zip(spaces, offsets, strict=True)]
            _, found = tail(points, self.against)
            return [s.grad(g) for s, g in zip(spaces, found, strict=True)]

        def move(offsets: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
            moved = []
            for space, offset, grad in zip(spaces, offsets, grads, strict=True):
                stepped = step(offset, grad, self.step_size)
                # Bounds of pixels shorten offsets: what is in the ball stays there.
                inside = project(stepped, torch.zeros_like(stepped), self.eps)
                moved.append(space.confine(inside))
            return moved

        start = [torch.zeros_like(f) for f in features]
        first = None
        if self.random_start:
            pixels = self.unit == 'pixel'
            draws = [self.images.draw(f, self.norm, pixels) for f in features]
            start = [s.confine(self.eps * d) for s, d in zip(spaces, draws, strict=True)]
        elif not self.against:
            first = [s.grad(g) for s, g in zip(spaces, gradients, strict=True)]
        found = ascend(start, gradients_at, move, self.steps, first)
        yield View([s.at(o) for s, o in zip(spaces, found, strict=True)], 1.0)

    def directions(
        self, features: Sequence[Tensor], gradients: Sequence[Tensor], seed: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Two perturbations of l-inf norm ``eps``: of steepest ascent, and of random signs.

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

    def _space(self, feature: Tensor) -> '_Space':
        if self.unit != 'pixel':
            return _Space(feature, deviation(feature) if self.unit == 'std' else 1.0)
        assert self._pixels is not None
        raw = self._pixels.raw(feature)
        # Images come in whole grey levels; rounding of the normalisation is taken off again.
        whole = raw.round()
        raw = torch.where((raw - whole).abs() < 1e-3, whole, raw)
        inside = self.images.inside(feature)
        return _Space(feature, inside * self._pixels.level(feature), raw, self._pixels.preprocessed)


@dataclass
class _Space:
    """Offsets from one clean value, counted in a unit.

    Attributes:
        clean: What the network sees.
        unit: One of an offset, in units of ``clean``; 0 where nothing may move.
        raw: Grey levels of images.
        preprocessed: From these to what the network sees.
    """

    clean: Tensor
    unit: float | Tensor
    raw: Tensor | None = None
    preprocessed: Callable[[Tensor], Tensor] | None = None

    def at(self, offset: Tensor) -> Tensor:
        """What the network is given."""
        if self.raw is None or self.preprocessed is None:
            return self.clean + self.unit * offset
        moved = self.preprocessed((self.raw + offset).clamp(0, 255))
        return torch.where(offset == 0, self.clean, moved)

    def grad(self, gradient: Tensor) -> Tensor:
        """Gradient toward the offset. What is not finite says nothing: boxes without area have
        infinite losses.
        """
        return torch.nan_to_num(gradient * self.unit, 0.0, 0.0, 0.0)

    def confine(self, offset: Tensor) -> Tensor:
        """The nearest offset that leads to an image; padding has none."""
        if self.raw is None:
            return offset
        bounded = torch.minimum(torch.maximum(offset, -self.raw), 255 - self.raw)
        return torch.where(torch.as_tensor(self.unit) > 0, bounded, torch.zeros_like(offset))
