# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Selection of views for a given average cost of a training step."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np
import torch

from mmfeataug.engine import Choice
from mmfeataug.utils.processes import of_first_process


@dataclass
class Allowance:
    """What a budget allows: from here on a function of the iteration, so that all processes and a
    resumed run agree.

    Attributes:
        start: First iteration it holds for.
        prob: Probability that an iteration has a view.
        weights: Of the views to draw one from, by name; None trains on all of them.
        cost: Expected cost of an iteration in stock steps, averaged.
    """

    start: int
    prob: float
    weights: dict[str, list[float]] | None
    cost: float

    def decide(self, iteration: int, seed: int) -> Choice | bool:
        """The view that is drawn for this iteration; True for all views, False for none."""
        random = np.random.default_rng([seed, iteration])
        if iteration < self.start or random.random() >= self.prob:
            return False
        if self.weights is None:
            return True
        views = [(name, i) for name, weights in self.weights.items() for i in range(len(weights))]
        weights = np.concatenate(list(self.weights.values()))
        drawn = random.choice(len(views), p=weights / weights.sum())
        # The one that is drawn stands for all.
        return Choice(*views[drawn], factor=float(weights.sum() / weights[drawn]))

    def __str__(self) -> str:
        what = 'all views'
        if self.weights is not None:
            what = f'one of {sum(map(len, self.weights.values()))} views, drawn by weight,'
        return (
            f'{what} in {self.prob:.1%} of the iterations from {self.start} on; expected average '
            f'{self.cost:.2f} stock steps'
        )


def wall_time() -> float:
    """Seconds, with the work that a GPU was given done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Budget:
    """Measures the cost of views, then draws views so that a step costs ``factor`` stock steps on
    average.

    The first iterations measure: stock steps, then steps with one view of each augmentation. Stock
    steps make up for the cost of the measurement before views begin. If all views do not fit into
    every step, one is drawn, with a probability proportional to its weight, and gets the weight of
    all. If one per step is too much, only some iterations have a view.

    Args:
        factor: Average cost of a step, in stock steps; above 1.
        names: Of the augmentations.
        seed: Of the draws.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, factor: float, names: Sequence[str], seed: int, clock: Callable[[], float] = wall_time
    ) -> None:
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not factor > 1:
            raise ValueError(
                f'budget={factor!r}: give the average cost of a step in stock steps, above 1, '
                'such as 1.15'
            )
        self.factor, self.seed, self._now = factor, seed, clock
        self.allowance: Allowance | None = None
        # None is a stock step. The first of each kind is slower: kernels are set up, taps verified.
        self._agenda: list[Choice | None] = [None] * 5
        self._agenda += [Choice(n, 0) for n in names for _ in range(4)]
        self._seconds: dict[Choice | None, list[float]] = defaultdict(list)
        self._weights: dict[str, list[float]] = {}
        self._begun = 0.0
        # How many more steps may pass without the view that was to be measured.
        self._patience = dict.fromkeys(names, 20)

    def warnings(self, behind: int) -> Iterator[str]:
        """What the allowance leaves out.

        Args:
            behind: The iteration after the last one that may have views.
        """
        assert self.allowance is not None
        if self.allowance.start >= behind:
            yield (
                f'after the measurement views could begin in iteration {self.allowance.start}, and '
                f'the last with views is {behind - 1}, so that none are trained on: give a larger '
                'budget, or interval or prob instead'
            )
        left_out = 'is left out from here on'
        if self.allowance.weights is None:
            left_out = 'the average does not count what its views cost'
        for name in self._patience:
            if name not in self._weights:
                yield (
                    f'{name} made no view while this was measured, and {left_out}: give it a '
                    'larger prob, or use interval'
                )

    def begin(self, iteration: int) -> Choice | bool:
        """Begin a step. Returns the one view to run, True for all views, or False for none."""
        if self.allowance is not None:
            return self.allowance.decide(iteration, self.seed)
        self._begun = self._now()
        return self._agenda[0] or False

    def end(self, weights: dict[str, list[float]], iteration: int) -> Allowance | None:
        """End a step.

        Args:
            weights: Of the views that it could have trained on, by name.
            iteration: Of this step.

        Returns:
            The allowance, in the step in which it has been determined.
        """
        if self.allowance is not None:
            return None
        seconds = self._now() - self._begun
        # A process may have no view of its own (no foreground in its images): all go by one.
        weights = {n: w for n, w in of_first_process(weights).items() if any(w)}
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
        if self._agenda:
            return None
        self.allowance = Allowance(**of_first_process(asdict(self._settle(iteration + 1))))
        return self.allowance

    def _settle(self, iteration: int) -> Allowance:
        left, stock = self.factor - 1, median(self._seconds[None][1:])
        costs = {
            choice.name: max(median(seconds[1:]) / stock - 1, 0.01)
            for choice, seconds in self._seconds.items()
            if choice is not None
        }
        spent = sum(sum(s) / stock - len(s) for c, s in self._seconds.items() if c is not None)
        start = iteration + math.ceil(max(spent, 0) / left)
        every = sum(costs[n] * sum(w > 0 for w in ws) for n, ws in self._weights.items())
        if every <= left:
            return Allowance(start, 1.0, None, 1 + every)
        total = sum(map(sum, self._weights.values()))
        one = sum(c * sum(self._weights.get(n, ())) / total for n, c in costs.items())
        prob = min(1.0, left / one)
        return Allowance(start, prob, self._weights, 1 + prob * one)

    def _index(self, name: str) -> int:
        """The first view of an augmentation that is trained on."""
        return next((i for i, w in enumerate(self._weights.get(name, ())) if w > 0), 0)
