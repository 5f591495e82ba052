# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Which iterations of a training have views, and at what strength."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from mmfeataug.utils.settings import flag, whole

LEAST_SHARE = 0.01
"""Of the iterations: with fewer views a training is the stock one."""


@dataclass(frozen=True)
class Schedule:
    """Settings of :class:`FeatureAugHook`, which describes them.

    Raises:
        ValueError, TypeError: For values that are out of range.
    """

    begin: int = 0
    end: int | None = None
    interval: int = 1
    warmup: int = 0
    by_epoch: bool = False
    prob: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (('begin', 0), ('interval', 1), ('warmup', 0)):
            whole(name, getattr(self, name), least)
        if self.end is not None and (type(self.end) is not int or self.end <= self.begin):
            raise ValueError(
                f'end={self.end!r} must come after begin={self.begin!r}; None is the end of '
                'training'
            )
        flag('by_epoch', self.by_epoch)
        prob = self.prob
        if isinstance(prob, bool) or not isinstance(prob, int | float) or not 0 <= prob <= 1:
            raise ValueError(f'prob={prob!r}: give a probability, 0 to 1')

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> 'Schedule':
        """Of a config of the hook; what it does not say is as by default."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in settings.items() if name in names})

    def holds(self, iteration: int, epoch: int) -> bool:
        """Whether augmentations act in an iteration; ``epoch`` is the length of one, in
        iterations.
        """
        return 0 <= iteration - self.first(epoch) < self._length(epoch)

    def draws(self, iteration: int, epoch: int, seed: int) -> bool:
        """Whether an iteration in which they act has views, by ``interval`` and ``prob``."""
        if (iteration - self.first(epoch)) % self.interval:
            return False
        return self.prob >= 1 or np.random.default_rng([seed, iteration]).random() < self.prob

    def ramp(self, iteration: int, epoch: int) -> float:
        """Factor of the views' weights, at most 1."""
        warmup = self.warmup * (epoch if self.by_epoch else 1)
        return min(1.0, (iteration - self.first(epoch)) / warmup) if warmup else 1.0

    def held(self, iterations: int, epoch: int) -> float:
        """In how many of all iterations of a training augmentations act."""
        return max(min(self._length(epoch), iterations - self.first(epoch)), 0) / iterations

    def share(self, iterations: int, epoch: int) -> float:
        """How many of all iterations of a training have views."""
        return self.held(iterations, epoch) * self.prob / self.interval

    def cost(
        self,
        iterations: int,
        epoch: int,
        with_views: float,
        without_views: float,
        prob: float = 1.0,
        budget: float | None = None,
    ) -> float:
        """Of a mean step, in stock steps.

        Args:
            iterations, epoch: Length of the training and of an epoch.
            with_views, without_views: Cost of a step in which all acts, and of one in which only
                methods act that change the clean pass itself.
            prob: Chance that methods act at all.
            budget: Of :class:`FeatureAugHook`.
        """
        views = with_views - without_views
        if budget is not None:
            views = min(views, (budget - 1) * without_views)
        held, share = self.held(iterations, epoch), self.share(iterations, epoch)
        return 1 + prob * (held * (without_views - 1) + share * views)

    def warnings(self, iterations: int, epoch: int) -> Iterator[str]:
        """What leaves next to nothing of the views of a training that has some."""
        if self.first(epoch) >= iterations:
            return
        given = ', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in fields(self))
        share, last = self.share(iterations, epoch), self.behind(iterations, epoch) - 1
        if share < LEAST_SHARE:
            yield (
                f'views in {share:.2%} of the iterations (about {share * iterations:.0f} of '
                f'{iterations}, {epoch} an epoch): {given}'
            )
        elif self.ramp(last, epoch) < 1:
            yield (
                f'the weights of the views grow to {self.ramp(last, epoch):.0%} only: warmup is '
                f'longer than the training ({iterations} iterations, {epoch} an epoch): {given}'
            )

    def first(self, epoch: int) -> int:
        """The first iteration in which augmentations act."""
        return self.begin * (epoch if self.by_epoch else 1)

    def behind(self, iterations: int, epoch: int) -> int:
        """The iteration after the last one of a training that may have views."""
        return int(min(iterations, self.first(epoch) + self._length(epoch)))

    def _length(self, epoch: int) -> float:
        unit = epoch if self.by_epoch else 1
        return float('inf') if self.end is None else (self.end - self.begin) * unit
