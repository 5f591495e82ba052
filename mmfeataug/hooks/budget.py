# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Which views fit into a given cost of a training step, and when it is their turn."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

import numpy as np
import torch
from mmengine.dist import broadcast_object_list

from mmfeataug.engine import Choice


@dataclass
class Plan:
    """What was chosen: from here on a function of the iteration, so that all processes and a
    resumed run agree.

    Attributes:
        start: First iteration it holds for.
        rate: Share of iterations with views, 0 to 1.
        weights: Of the views to draw one from each time, by name; None trains on all of them.
        cost: Expected cost of an iteration in stock steps, averaged.
        samples: Number of samples of the batch that a drawn view is trained on, by name of the
            augmentation; all of them where it is missing.
    """

    start: int
    rate: float
    weights: dict[str, list[float]] | None
    cost: float
    samples: dict[str, int] = field(default_factory=dict)

    def turn(self, iteration: int, seed: int) -> Choice | bool:
        """The view that is drawn for this iteration; True for all views, False for none."""
        since = iteration - self.start
        # Evenly spread: as many turns as fit into the iterations so far.
        if since < 0 or int((since + 1) * self.rate) == int(since * self.rate):
            return False
        if self.weights is None:
            return True
        views = [(name, i) for name, weights in self.weights.items() for i in range(len(weights))]
        weights = np.concatenate(list(self.weights.values()))
        drawn = np.random.default_rng([seed, iteration]).choice(
            len(views), p=weights / weights.sum()
        )
        # The one that is drawn stands for all.
        name, index = views[drawn]
        factor = float(weights.sum() / weights[drawn])
        return Choice(name, index, factor, self.samples.get(name))

    def __str__(self) -> str:
        often = f'in {self.rate:.1%} of the iterations' if self.rate < 1 else 'in every iteration'
        what = 'all views'
        if self.weights is not None:
            what = f'one of {sum(map(len, self.weights.values()))} views, drawn by weight,'
        if self.samples:
            parts = ' and '.join(f'{k} samples for {name}' for name, k in self.samples.items())
            what = f'{what} on a part of the batch ({parts}),'
        return f'{what} {often} from {self.start} on; expected average {self.cost:.2f} stock steps'


def wall_time() -> float:
    """Seconds, with the work that a GPU was given done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Budget:
    """Measures what views cost, then plans so that a step costs ``factor`` stock steps on average.

    The first iterations measure: stock steps, then steps with one view of each augmentation. What
    these spend is saved up again before the plan begins. If all views together do not fit, one view
    is drawn each time, with a probability proportional to its weight, and carries the weight of
    all. If that is too much, it is trained on as many samples of the batch as fit, where the tap
    allows that; what such a part costs is measured next. What still is too much has a turn only as
    often as the budget allows.

    Args:
        factor: Average cost of a step, in stock steps; above 1.
        names: Of the augmentations.
        seed: Of the draws.
        clock: Seconds.
    """

    def __init__(
        self,
        factor: float,
        names: Sequence[str],
        seed: int,
        clock: Callable[[], float] = wall_time,
    ) -> None:
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not factor > 1:
            raise ValueError(
                f'budget={factor!r}: give the average cost of a step in stock steps, above 1, '
                'such as 1.15'
            )
        self.factor, self.seed, self._now = factor, seed, clock
        self.plan: Plan | None = None
        # None is a stock step. The first of each kind is slower: kernels are set up, taps verified.
        self._agenda: list[Choice | None] = [None] * 5
        self._agenda += [Choice(n, 0) for n in names for _ in range(4)]
        self._seconds: dict[Choice | None, list[float]] = defaultdict(list)
        self._weights: dict[str, list[float]] = {}
        self._parts: dict[str, range] = {}
        # What the second round measures; None before it.
        self._samples: dict[str, int] | None = None
        self._begun = 0.0
        # How many more steps may pass without the view that was to be measured.
        self._patience = dict.fromkeys(names, 20)

    @property
    def unseen(self) -> list[str]:
        """Augmentations that have made no view, however often one was to be measured."""
        return [name for name in self._patience if name not in self._weights]

    def begin(self, iteration: int) -> Choice | bool:
        """A step begins: the one view to run in it, or True for all views, or False for none."""
        if self.plan is not None:
            return self.plan.turn(iteration, self.seed)
        self._begun = self._now()
        return self._agenda[0] or False

    def end(
        self,
        weights: dict[str, list[float]],
        iteration: int,
        parts: dict[str, range] | None = None,
    ) -> Plan | None:
        """A step is over.

        Args:
            weights: Of the views that it could have trained on, by name.
            iteration: Of this step.
            parts: Numbers of samples, from the fewest to one short of the batch, that they could
                have been trained on, by name; those that need the whole batch are missing.

        Returns:
            The plan, when it has just been made.
        """
        if self.plan is not None:
            return None
        seconds = self._now() - self._begun
        # A process may have no view of its own (no foreground in its images): all go by one.
        told = _of_first_process(dict(weights=weights, parts=parts or {}))
        weights = {name: w for name, w in told['weights'].items() if any(w)}
        done = self._agenda.pop(0)
        if done and done.name not in weights and self._patience[done.name]:
            self._patience[done.name] -= 1
            self._agenda.append(done)
            return None
        self._seconds[done].append(seconds)
        self._weights |= weights
        if done and done.index != self._index(done.name):
            # The first view has no weight: another one is measured.
            del self._seconds[done]
            self._agenda = [c for c in self._agenda if c is None or c.name != done.name]
            self._agenda += [Choice(done.name, self._index(done.name))] * 4
        self._parts |= told['parts']
        if self._agenda:
            return None
        if self._samples is None:
            self._samples = _of_first_process(self._divide())
            self._agenda += [
                Choice(n, self._index(n), samples=k)
                for n, k in self._samples.items()
                for _ in range(4)
            ]
            if self._agenda:
                return None
        self.plan = Plan(**_of_first_process(asdict(self._decide(iteration + 1))))
        return self.plan

    def _divide(self) -> dict[str, int]:
        """Numbers of samples to try, by name: as many as would let one view fit into each step if
        a part cost its share.
        """
        costs, left = self._costs(), self.factor - 1
        if self._every(costs) <= left:
            return {}
        whole, divisible = (
            self._one({n: c for n, c in costs.items() if (n in self._parts) == kind})
            for kind in (False, True)
        )
        if whole + divisible <= left or not divisible:
            return {}
        share = max(left - whole, 0) / divisible
        return {n: max(r.start, math.floor(r.stop * share)) for n, r in self._parts.items()}

    def _decide(self, iteration: int) -> Plan:
        costs, left = self._costs(), self.factor - 1
        stock = self._stock
        spent = sum(sum(s) / stock - len(s) for c, s in self._seconds.items() if c is not None)
        start = iteration + math.ceil(max(spent, 0) / left)
        every = self._every(costs)
        if every <= left:
            return Plan(start, 1.0, None, 1 + every)
        samples = {}
        for name, k in (self._samples or {}).items():
            part = self._cost(Choice(name, self._index(name), samples=k))
            # A smaller batch for nothing would be a bad bargain.
            if part < 0.9 * costs[name]:
                costs[name], samples[name] = part, k
        one = self._one(costs)
        rate = min(1.0, left / one)
        return Plan(start, rate, self._weights, 1 + rate * one, samples)

    def _index(self, name: str) -> int:
        """The first view of an augmentation that is trained on."""
        return next((i for i, w in enumerate(self._weights.get(name, ())) if w > 0), 0)

    @property
    def _stock(self) -> float:
        return median(self._seconds[None][1:])

    def _cost(self, choice: Choice) -> float:
        """Of one view, its attack included, in stock steps."""
        return max(median(self._seconds[choice][1:]) / self._stock - 1, 0.01)

    def _costs(self) -> dict[str, float]:
        """Of one view on the whole batch, by name."""
        whole = [c for c in self._seconds if c is not None and c.samples is None]
        return {c.name: self._cost(c) for c in whole}

    def _every(self, costs: dict[str, float]) -> float:
        """Cost of all views together."""
        return sum(costs[n] * sum(w > 0 for w in weights) for n, weights in self._weights.items())

    def _one(self, costs: dict[str, float]) -> float:
        """Contribution of these augmentations to the average cost of a view drawn among all."""
        total = sum(map(sum, self._weights.values()))
        return sum(c * sum(self._weights.get(n, ())) / total for n, c in costs.items())


def _of_first_process(value: dict) -> dict:
    values = [value]
    broadcast_object_list(values)
    return values[0]
