# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A-FAN: adversarial feature augmentation and normalisation."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmfeataug.engine import FeatureAugmentation, Tail, View
from mmfeataug.functional import (
    AXES,
    ascend,
    deviation,
    interpolate,
    project_linf,
    reinject_statistics,
    signed_step,
)
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.pixels import PixelScale
from mmfeataug.utils.settings import flag, non_negative, share, whole


@AUGMENTATIONS.register_module()
class AFAN(FeatureAugmentation):
    r"""Train on adversarial features of several strengths, or on their statistics.

    One attack moves the clean feature :math:`f` by ``steps`` signed steps of size ``gamma`` to
    :math:`f^{adv}`. Each strength :math:`t` gives a view :math:`f_t = f + t (f^{adv} - f)`, and
    where ``reinject`` is True the view is the clean feature with the statistics of :math:`f_t`:

    .. math:: \sigma(f_t) \frac{f - \mu(f)}{\sigma(f)} + \mu(f_t)

    The first step takes its gradient from the clean pass and costs nothing, unless ``bn`` gives
    views other batch norms (``'separate'``, ``'eval'``); each further one evaluates the network
    behind the tap. Paper: https://arxiv.org/abs/2103.12171 (figure 2).

    Args:
        at: Place; see :class:`FeatureAugmentation`.
        gamma: Size of a step, in ``unit``.
        strengths: Points on the way to the adversarial feature, one view each; one number or
            several.
        reinject: Whether a view is the re-injection of its statistics: one flag, or one per
            strength.
        axes: What these statistics are taken over: ``'channel'`` (the authors' release; where
            None), ``'spatial'``, ``'batch'``. Only with ``reinject``.
        steps: Number of steps.
        eps: Radius of the l-inf ball around the clean feature that steps stay in, in ``unit``;
            None: no bound.
        random_start: Start from a uniform draw in the ball of radius ``eps`` (``gamma`` if None).
            Its first step costs an evaluation of the tail, because the clean gradient is not that
            at the start.
        noise: Amplitude of uniform noise that is added to each view, in ``unit``.
        weight: Factor of each view's loss: one number, or one per strength; None is a share, see
            :class:`FeatureAugmentation`.
        unit: ``'std'``: ``gamma``, ``eps`` and ``noise`` count in standard deviations of the clean
            feature (:func:`mmfeataug.functional.deviation`, as in attacks on a test set), so that
            one value serves any layer and model; ``'absolute'``: as they are (the release's
            settings are such, written ``1 / 255``); or, at ``'inputs'``, ``'pixel'``: in grey
            levels of the raw image (1/255 of its range), whatever normalises it, and the image
            stays in range.
        against: Words in the names of the loss terms to attack, such as ``('loss_cls',)`` or
            ``('bbox',)``; empty: the whole loss. A list of several such lists makes one attack
            each and keeps the one with the larger whole loss, as Det-AdvProp does
            (https://arxiv.org/abs/2103.13886). Costs one evaluation of the tail an attack step,
            and one more an attack if there are several.
        direction: ``'gradient'``, or ``'random'``: one step of the same size along random signs,
            the control that shows what the adversarial direction is worth.
        side, bn, learn: See :class:`FeatureAugmentation`.
        image_range: With ``unit='pixel'``: smallest and largest value of the images before they are
            normalised; None learns it, see :class:`mmfeataug.utils.pixels.PixelScale`.

    Raises:
        ValueError: For settings that contradict each other; ``axes='channel'`` on a feature of one
            channel.
    """

    def __init__(
        self,
        *,
        at: str,
        gamma: float = 0.25,
        strengths: float | Sequence[float] = (1.0,),
        reinject: bool | Sequence[bool] = False,
        axes: str | None = None,
        steps: int = 1,
        eps: float | None = None,
        random_start: bool = False,
        noise: float = 0.0,
        weight: float | Sequence[float | None] | None = None,
        unit: str = 'std',
        against: Sequence[str] | Sequence[Sequence[str]] = (),
        direction: str = 'gradient',
        image_range: tuple[float, float] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(at=at, **kwargs)
        self.image_range = image_range
        if not isinstance(strengths, (int, float, list, tuple)):
            raise TypeError(f'strengths={strengths!r} at {at!r}: give a number or a list of them')
        points = (strengths,) if isinstance(strengths, (int, float)) else tuple(strengths)
        self.strengths = tuple(non_negative('strengths', s, at) for s in points)
        if not self.strengths:
            raise ValueError(f'strengths=() at {at!r}: give at least one strength')
        self.gamma = non_negative('gamma', gamma, at)
        self.eps = None if eps is None else non_negative('eps', eps, at)
        self.noise = non_negative('noise', noise, at)
        each = self._per_view('reinject', reinject, bool)
        self.reinject = tuple(flag('reinject', r, at) for r in each)
        weights = self._per_view('weight', weight, (int, float, type(None)))
        self.weight: tuple[float | None, ...] = tuple(share('weight', w, at) for w in weights)
        if axes is not None and axes not in AXES:
            raise ValueError(f'axes={axes!r} at {at!r}: choose one of {", ".join(AXES)}')
        if axes is not None and not any(self.reinject):
            raise ValueError(
                f'axes={axes!r} at {at!r} with reinject={reinject!r}: no statistics are '
                're-injected; set reinject=True, or leave axes out'
            )
        if unit not in ('absolute', 'std', 'pixel'):
            raise ValueError(f"unit={unit!r} at {at!r}: choose 'absolute', 'std' or 'pixel'")
        if unit == 'pixel' and at != 'inputs':
            raise ValueError(f"unit='pixel' at {at!r}: only at='inputs' there are pixels")
        if image_range is not None and unit != 'pixel':
            raise ValueError(
                f'image_range={image_range!r} at {at!r} with unit={unit!r}: only grey levels have '
                "a range; set at='inputs' and unit='pixel', or leave it out"
            )
        words: Any = [against] if _are_words(against) else against
        if not isinstance(words, (list, tuple)) or not all(map(_are_words, words)):
            raise TypeError(f'against={against!r} at {at!r}: give a list of words, or several')
        self.against: list[tuple[str, ...]] = [tuple(group) for group in words]
        whole('steps', steps, at=at)
        if direction not in ('gradient', 'random'):
            raise ValueError(f"direction={direction!r} at {at!r}: choose 'gradient' or 'random'")
        if direction == 'random' and (steps > 1 or random_start or any(self.against)):
            raise ValueError(
                f"direction='random' at {at!r} is one step that asks no loss: set steps=1, and "
                'leave out random_start and against'
            )
        self.axes = axes or 'channel'
        self.steps, self.random_start, self.unit = steps, random_start, unit
        self.direction = direction
        # What limits the move; a random start is anywhere in the ball.
        is_bound = self.eps is not None and (random_start or self.eps < steps * self.gamma)
        self.strength_name = 'eps' if is_bound else 'gamma'
        self._pixels: PixelScale | None = None

    @property
    def active(self) -> bool:
        """False if every weight is 0, or if nothing moves any view."""
        step = self.gamma > 0 or (self.random_start and self.eps)
        moved = self.noise > 0 or (any(self.strengths) and step and self.eps != 0)
        return self.has_weight and bool(moved)

    def bind(self, model: nn.Module) -> None:
        """Learn the scale of pixels."""
        self._pixels = PixelScale(model, self.image_range)

    def fault(self, features: list[Tensor]) -> str:
        """Too few values for statistics to re-inject."""
        return super().fault(features) if any(self.reinject) else ''

    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """One view per strength; see :meth:`FeatureAugmentation.views`."""
        units = [self._unit(f) for f in features]
        attacks = [
            self._attack(features, gradients, units, tail, against) for against in self.against
        ]
        adversarial = attacks[0] if len(attacks) == 1 else max(attacks, key=tail.loss)
        for strength, reinject in zip(self.strengths, self.reinject, strict=True):
            view = []
            for f, adv, unit in zip(features, adversarial, units, strict=True):
                (point,) = interpolate(f, adv, [strength])
                if reinject:
                    point = reinject_statistics(f, point, self.axes)
                if self.noise:
                    point = point + self._uniform(f, tail.generator) * (self.noise * unit)
                view.append(self._in_range(point))
            yield View(view)

    def _attack(
        self,
        features: list[Tensor],
        gradients: list[Tensor],
        units: list[float | Tensor],
        tail: Tail,
        against: Sequence[str],
    ) -> list[Tensor]:
        points = features
        if self.random_start:
            radius = self.gamma if self.eps is None else self.eps
            points = [
                f + self._uniform(f, tail.generator) * (radius * unit)
                for f, unit in zip(features, units, strict=True)
            ]

        def move(points: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
            moved = [
                signed_step(p, g, self.gamma * unit)
                for p, g, unit in zip(points, gradients, units, strict=True)
            ]
            if self.eps is None:
                return moved
            return [
                project_linf(p, f, self.eps * unit)
                for p, f, unit in zip(moved, features, units, strict=True)
            ]

        first = None
        if self.direction == 'random':
            first = [self._uniform(f, tail.generator) for f in features]
        elif not (self.random_start or against):
            first = self.attack_gradients(features, gradients, tail)
        points = ascend(points, lambda p: tail(p, against)[1], move, self.steps, first)
        return [self._in_range(p) for p in points]

    def _in_range(self, point: Tensor) -> Tensor:
        """An image, of pixels that there are."""
        if self.unit != 'pixel':
            return point
        assert self._pixels is not None
        return self._pixels.preprocessed(self._pixels.raw(point).clamp(0, 255))

    def _unit(self, feature: Tensor) -> float | Tensor:
        if self.unit == 'absolute':
            return 1.0
        if self.unit == 'pixel':
            assert self._pixels is not None
            return self._pixels.level(feature)
        return deviation(feature)

    @staticmethod
    def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
        return torch.empty_like(like).uniform_(-1, 1, generator=generator)

    def _per_view(self, name: str, value, kind) -> tuple:
        single = isinstance(value, kind)
        if not (single or isinstance(value, (list, tuple))):
            raise TypeError(
                f'{name}={value!r} at {self.at!r}: give one value, or a list of one per strength'
            )
        values = (value,) * len(self.strengths) if single else tuple(value)
        if len(values) != len(self.strengths):
            raise ValueError(
                f'{name}={value!r} at {self.at!r} has {len(values)} entries for '
                f'{len(self.strengths)} strengths; '
                'give one value, or one per strength'
            )
        return values


def _are_words(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value)
