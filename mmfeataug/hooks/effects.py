# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Warnings about views that change too little or too much."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmfeataug.engine import Augmentation
from mmfeataug.utils.settings import Fix

from .findings import Finding

LEAST = 0.01
"""Of the feature's deviation, and of the clean loss: a view below is nearly the clean feature."""
MOST = 10.0
"""Losses of views above so many clean ones are wild."""
WANTED_RISE = 0.3
"""Of the clean loss: what the value to try aims at."""
WANTED_DISTANCE = 0.25
"""In deviations: likewise, where the loss does not rise; the default of AFAN."""


@dataclass
class Effect:
    """Effect of the strongest view of a method, averaged over iterations.

    Attributes:
        distance: From the clean feature, in standard deviations of it.
        loss: Of the view with the largest loss.
        clean: Clean loss.
    """

    distance: float
    loss: float
    clean: float

    @property
    def rise(self) -> float:
        """Of the loss."""
        return self.loss - self.clean

    @property
    def fault(self) -> str:
        """What is wrong with it: ``'near'``, ``'flat'``, ``'wild'``, or nothing."""
        if self.distance < LEAST:
            return 'near'
        if abs(self.rise) < LEAST * abs(self.clean):
            return 'flat'
        return 'wild' if self.clean > 0 and self.loss > MOST * self.clean else ''

    def better(self, value: float, most: float = math.inf) -> float | None:
        """A strength to try in place of ``value``; None if this says nothing about it. A step is
        linear to first order.

        Args:
            value: Now.
            most: Largest that may help.
        """
        if not value or not self.distance:
            return None
        factor = WANTED_DISTANCE / self.distance
        if self.rise > 0:
            # Small rises are mostly noise: no further than to a whole deviation.
            factor = min(WANTED_RISE * abs(self.clean) / self.rise, 1 / self.distance)
        better = min(value * factor, most)
        # Where more was wanted than helps, there is nothing to try.
        if not math.isfinite(better) or better <= value < value * factor:
            return None
        return float(f'{better:.2g}')


class EffectWatch:
    """Measures effects in the first iterations with views, of the run and of each epoch.

    Measurements stay on their device until all are there, so the host waits for a GPU once per
    epoch. Flat losses are reported from the second time on, because the loss of an untrained
    network hardly depends on any feature.

    Args:
        augmentations: By the names they are logged under.
        count: Number of iterations with views to average over.
    """

    def __init__(self, augmentations: Mapping[str, Augmentation], count: int = 5) -> None:
        self._augmentations, self._count = augmentations, count
        self._epoch, self._left = -1, 0
        self._is_first = True
        self._measured: dict[str, list[Tensor]] = {}
        self._said: set[tuple[str, str]] = set()
        self._idle: Counter[str] = Counter()

    def idle(self, acted: Mapping[str, bool]) -> list[str]:
        """Warnings about methods that have not acted once in their first iterations.

        Args:
            acted: Of :class:`mmfeataug.engine.Outcome`.
        """
        found = []
        for name, has_acted in acted.items():
            # Never again, once it has.
            self._idle[name] += self._count + 1 if has_acted else 1
            if self._idle[name] == self._count:
                found.append(
                    f'{name} at {self._augmentations[name].at}: in its first {self._count} '
                    'iterations nothing could be trained on: views are not finite, or the method '
                    f'cannot work with these batches ({name}.dropped and .skipped in the log); '
                    'lower its strength, or choose another place'
                )
        return found

    def wants(self, epoch: int) -> bool:
        """Whether the next iteration is to be measured."""
        if epoch != self._epoch:
            self._epoch = epoch
            # What was begun goes on: an epoch may have too few iterations with views.
            self._left = self._left or self._count
        return self._left > 0

    def add(self, effects: Mapping[str, Tensor]) -> list[str]:
        """Take note of an iteration.

        Args:
            effects: Of :class:`mmfeataug.engine.Outcome`.

        Returns:
            Warnings, each of which comes once in a run.
        """
        if not effects:
            return []
        for name, rows in effects.items():
            # The strongest view.
            self._measured.setdefault(name, []).append(rows.amax(0))
        self._left -= 1
        if self._left:
            return []
        measured, self._measured = self._measured, {}
        found = list(self._warnings(measured))
        self._is_first = False
        return found

    def _warnings(self, measured: Mapping[str, list[Tensor]]) -> Iterator[str]:
        for name, rows in measured.items():
            effect = Effect(*torch.stack(rows).mean(0).tolist())
            fault = effect.fault
            if fault == 'flat' and self._is_first:
                continue
            if fault and (name, fault) not in self._said:
                self._said.add((name, fault))
                yield judge(name, self._augmentations[name], effect).message


def judge(name: str, augmentation: Augmentation, effect: Effect) -> Finding:
    """What is wrong with an effect that has a fault, and a value to try."""
    what = {
        'near': 'the views are nearly the clean features and teach little',
        'flat': 'the loss of the views is nearly the clean one, so that they teach little',
        'wild': 'the views are so hard that they may drown the clean loss',
    }[effect.fault]
    measured = (
        f'{name} at {augmentation.at}: {what}: {effect.distance:.2%} of the deviation away, '
        f'loss {effect.loss:.4g} beside {effect.clean:.4g} (means of the strongest view)'
    )
    strength = augmentation.strength_name
    value = getattr(augmentation, strength) if strength else None
    most = getattr(augmentation, 'strength_most', math.inf)
    better = effect.better(value, most) if value is not None else None
    if better is None:
        return Finding(f'{measured}; try an earlier place')
    fix = Fix('augmentation', strength, better, augmentation.at, type(augmentation).__name__)
    return Finding(f'{measured}; try {strength}={better:g} instead of {value:.3g}', fix=fix)
