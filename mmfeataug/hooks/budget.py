# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Which views fit into a given cost of a training step, and when it is their turn."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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
    """

    start: int
    rate: float
    weights: dict[str, list[float]] | None
    cost: float

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
        return Choice(*views[drawn], float(weights.sum() / weights[drawn]))

    def __str__(self) -> str:
        often = f'in {self.rate:.1%} of the iterations' if self.rate < 1 else 'in every iteration'
        what = 'all views'
        if self.weights is not None:
            what = f'one of {sum(map(len, self.weights.values()))} views, drawn by weight,'
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
    all; if that is too much, it has a turn only as often as the budget allows.

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
        self._agenda: list[str | None] = [None] * 5 + [n for n in names for _ in range(4)]
        self._seconds: dict[str | None, list[float]] = defaultdict(list)
        self._weights: dict[str, list[float]] = {}
        self._begun = 0.0

    def begin(self, iteration: int) -> Choice | bool:
        """A step begins: the one view to run in it, or True for all views, or False for none."""
        if self.plan is not None:
            return self.plan.turn(iteration, self.seed)
        self._begun = self._now()
        name = self._agenda[0]
        return False if name is None else Choice(name, 0)

    def end(self, weights: dict[str, list[float]], iteration: int) -> Plan | None:
        """A step is over.

        Args:
            weights: Of the views that it could have trained on, by name.
            iteration: Of this step.

        Returns:
            The plan, when it has just been made.
        """
        if self.plan is not None:
            return None
        self._seconds[self._agenda.pop(0)].append(self._now() - self._begun)
        self._weights |= weights
        if self._agenda:
            return None
        plans = [asdict(self._decide(iteration + 1))]
        broadcast_object_list(plans)
        self.plan = Plan(**plans[0])
        return self.plan

    def _decide(self, iteration: int) -> Plan:
        stock = median(self._seconds.pop(None)[1:])
        costs = {n: max(median(s[1:]) / stock - 1, 0.01) for n, s in self._seconds.items()}
        spent = sum(sum(s) / stock - len(s) for s in self._seconds.values())
        # The first view alone was measured, its attack included.
        every = sum(costs[n] * sum(w > 0 for w in weights) for n, weights in self._weights.items())
        left = self.factor - 1
        start = iteration + math.ceil(max(spent, 0) / left)
        if every <= left:
            return Plan(start, 1.0, None, 1 + every)
        total = sum(map(sum, self._weights.values()))
        one = sum(costs[n] * sum(weights) / total for n, weights in self._weights.items())
        rate = min(1.0, left / one)
        return Plan(start, rate, self._weights, 1 + rate * one)
