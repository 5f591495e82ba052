# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Test on one batch: places that are not called, effects of views, cost and memory."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mmfeataug.engine import Augmentation, AugmentedLoss, Choice, NotCalledError, Plan, tail_shares
from mmfeataug.utils.settings import Fix

from .budget import wall_time
from .cost_hook import acting_always
from .effects import Effect, judge
from .findings import Finding, errors

Context = Callable[[], AbstractContextManager]
PACKAGE = Path(__file__).parents[1]


@dataclass
class Trial:
    """Result of the test.

    Attributes:
        findings: Errors and warnings.
        cost, without_views: Time of a step with all views and without, in stock steps, without the
            optimizer's part; methods with a ``prob`` act in both.
        prob: The largest of these.
        seconds: Of a stock step.
        memory: Peaks in bytes on a GPU, of a stock step and of one with views; None on a CPU.
        gradients: Size of the gradients of all parameters that learn, in bytes.
        failure: What the stock step raised; nothing else is known then.
    """

    findings: list[Finding] = field(default_factory=list)
    cost: float | None = None
    without_views: float = 1.0
    prob: float = 1.0
    seconds: float | None = None
    memory: tuple[int, int] | None = None
    gradients: int = 0
    failure: Exception | None = None


def try_batch(
    handle: AugmentedLoss, batch: Sequence[Any], faults: Sequence[str], context: Context
) -> Trial:
    """Run stock steps and steps with views on one batch; weights stay as they are.

    Args:
        handle: Attached to the model.
        batch: Preprocessed inputs and data samples.
        faults: Of effects (:attr:`Effect.fault`) to look for; those of untrained weights say
            nothing.
        context: In which the loss is computed, such as autocast.
    """
    with acting_always(handle.model) as probs:
        trial = _try_batch(handle, batch, faults, context)
    trial.prob = max(probs, default=1.0)
    return trial


def _try_batch(
    handle: AugmentedLoss, batch: Sequence[Any], faults: Sequence[str], context: Context
) -> Trial:
    model = handle.model
    model.train()
    learn = [p for p in model.parameters() if p.requires_grad]
    trial = Trial(gradients=sum(p.numel() * p.element_size() for p in learn))
    try:
        stock, peak = _run(handle, batch, Plan(enabled=False), 2, context)
    except Exception as error:
        # Of a stock model and a batch that may be no data of its: the caller knows what it says.
        trial.failure = error
        return trial
    trial.seconds = stock
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            views, peak_with_views = _run(handle, batch, Plan(measure=True), 2, context)
    except (RuntimeError, ValueError) as error:
        trial.findings = list(_each_error(handle, batch, error, context))
        return trial
    own = [str(w.message) for w in caught if PACKAGE in Path(w.filename).parents]
    trial.findings = [Finding(message) for message in dict.fromkeys(own)]
    trial.findings += [
        Finding(
            f'{name} at {handle.augmentations[name].at}: nothing of this batch could be trained '
            'on: views are not finite, or the method cannot work with it; lower its strength, or '
            'choose another place'
        )
        for name, has_acted in handle.outcome.acted.items()
        if not has_acted
    ]
    trial.cost = views / stock
    if torch.cuda.is_available():
        trial.memory = peak, peak_with_views
    for name, rows in handle.outcome.effects.items():
        effect = Effect(*rows.amax(0).tolist())
        if effect.fault and effect.fault in faults:
            trial.findings.append(judge(name, handle.augmentations[name], effect))
    if handle.layers:
        beside, _ = _run(handle, batch, Plan(views=False), 2, context)
        trial.without_views = beside / stock
    return trial


def _run(
    handle: AugmentedLoss, batch: Sequence[Any], plan: Plan, repeats: int, context: Context
) -> tuple[float, int]:
    """Median time of a step in seconds, after one untimed, and peak of memory in bytes."""
    model, times = handle.model, []
    for _ in range(repeats + 1):
        model.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        begun = wall_time()
        handle.plan = plan
        with context():
            losses = model.loss(*batch)  # type: ignore[operator]
        model.parse_losses(losses)[0].backward()  # type: ignore[operator]
        times.append(wall_time() - begun)
    model.zero_grad(set_to_none=True)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return median(times[1:]), peak


def _each_error(
    handle: AugmentedLoss, batch: Sequence[Any], first: Exception, context: Context
) -> list[Finding]:
    """One step for each augmentation by itself, so that none hides another."""
    found: list[Finding] = []
    for name in handle.names:
        try:
            _run(handle, batch, Plan(only=Choice(name, 0)), 1, context)
        except (RuntimeError, ValueError) as error:
            found += _mended(handle, name, batch, error)
    # A layer, which acts beside all of them, fails in each of these steps.
    each = {(f.message, f.fix): f for f in found or errors(first)}.values()
    mended = {f.message for f in each if f.fix is not None}
    return [f for f in each if f.fix is not None or f.message not in mended]


def _mended(
    handle: AugmentedLoss, name: str, batch: Sequence[Any], error: Exception
) -> list[Finding]:
    """With a fix: a child of the place that is called, or the batch that a method needs."""
    augmentation, fix = handle.augmentations[name], None
    least = augmentation.least_samples
    if isinstance(error, NotCalledError):
        fix = _moved(handle, augmentation, batch, error.at)
    elif least > len(batch[0]):
        fix = Fix('config', 'train_dataloader.batch_size', least)
    kind = type(augmentation)
    places = [a.at for a in handle.augmentations.values() if type(a) is kind] if fix else []
    return [Finding(str(error), error, fix, tuple(places))]


def _moved(
    handle: AugmentedLoss, augmentation: Augmentation, batch: Sequence[Any], at: str
) -> Fix | None:
    """To a child that is called; None if ``at`` is the place of a layer beside it."""
    if at not in augmentation.paths:
        return None
    model = handle.model

    def loss() -> torch.Tensor:
        return model.parse_losses(handle.stock_loss(*batch))[0]  # type: ignore[operator]

    below = [p for p in tail_shares(model, loss, repeats=1) if p.startswith(f'{at}.')]
    if not below:
        return None
    nearest = min(below, key=lambda path: path.count('.'))
    return Fix('augmentation', 'at', nearest, at, type(augmentation).__name__)
