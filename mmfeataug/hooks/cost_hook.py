# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What a training step of a run costs, in stock steps of the same process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from statistics import median
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmfeataug.engine import AugmentedLoss, Plan
from mmfeataug.models import layers
from mmfeataug.registry import HOOKS
from mmfeataug.utils.models import model_of
from mmfeataug.utils.settings import whole

from .budget import wall_time


@HOOKS.register_module()
class CostHook(Hook):
    """Measures the cost of views: rounds of a stock step, one without views, and one with all.

    For measuring only: most of the steps train without views. The time of each other step is
    divided by the mean of the two stock steps around it, so that slow changes of the machine's
    speed cancel. Data loading is not part of a step; data preprocessor and optimizer are. Methods
    with a ``prob`` act in each of these steps: a median over draws would be one side of the coin.

    Args:
        rounds: Those that are timed, after two that are not.
        advance: Called after each step.

    Attributes:
        with_views: After training: time of a step in which all acts, in stock steps; median over
            rounds.
        without_views: Of one in which only methods act that change the clean pass itself.
        seconds: Of a stock step.
        probs: The ``prob`` of each augmentation and layer; 1 where it has none, or saves no time.
    """

    priority = 'LOWEST'
    WARM = 2
    STEPS: tuple[dict[str, bool], ...] = (dict(enabled=False), dict(views=False), {})
    """Of a round: plans; the first is a stock step."""

    def __init__(self, rounds: int = 8, advance: Callable[[], object] | None = None) -> None:
        self.rounds, self.advance = whole('rounds', rounds), advance
        self.with_views = self.without_views = self.seconds = float('nan')
        self.probs: list[float] = []
        self._acts_always, self._seconds = ExitStack(), list[float]()
        self._changes_clean = False

    @property
    def iterations(self) -> int:
        """Number of training iterations that the measurement needs."""
        return len(self.STEPS) * (self.rounds + self.WARM) + 1

    def before_train(self, runner: Runner) -> None:
        """Let methods act always."""
        model = model_of(runner)
        self._changes_clean = any(method.in_place for method in _methods(model))
        self.probs = self._acts_always.enter_context(acting_always(model))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Decide what acts in this step."""
        step = self.STEPS[runner.iter % len(self.STEPS)]
        model = model_of(runner)
        handle = vars(model).get('loss')
        if isinstance(handle, AugmentedLoss):
            handle.plan = Plan(runner.iter, **step)
        for layer in layers(model):
            layer.muted = step is self.STEPS[0]
        self._begun = wall_time()

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Record the time."""
        self._seconds.append(wall_time() - self._begun)
        if self.advance is not None:
            self.advance()

    def after_train(self, runner: Runner) -> None:
        """Compute the medians, and let layers and methods act as they did."""
        self._acts_always.close()
        model = model_of(runner)
        for layer in layers(model):
            layer.muted = False
        kinds = len(self.STEPS)
        times = self._seconds[kinds * self.WARM :]
        stock, *others = (times[kind::kinds] for kind in range(kinds))
        between = [(a + b) / 2 for a, b in pairwise(stock)]
        self.without_views, self.with_views = (
            median(t / s for t, s in zip(other, between, strict=True)) for other in others
        )
        self.seconds = median(stock)
        if not self._changes_clean:
            # What was measured is a stock step.
            self.without_views = 1.0


@contextmanager
def acting_always(model: nn.Module) -> Iterator[list[float]]:
    """Within this context what augments a model acts in every step, unless its ``prob`` is 0;
    yields the ``prob`` of each, 1 where it has none, or saves no time.
    """
    methods = _methods(model)
    probs = [
        1.0 if getattr(m, 'acts_by_image', False) else getattr(m, 'prob', 1.0) for m in methods
    ]
    own = {m: m.prob for m in methods if getattr(m, 'prob', 0)}
    for method in own:
        method.prob = 1.0
    try:
        yield probs
    finally:
        for method, prob in own.items():
            method.prob = prob


def _methods(model: nn.Module) -> list[Any]:
    """Of the hook, if it is attached, and layers of the model."""
    handle = vars(model).get('loss')
    of_hook = handle.augmentations.values() if isinstance(handle, AugmentedLoss) else ()
    return [*of_hook, *layers(model)]
