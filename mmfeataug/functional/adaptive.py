# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""APGD: gradient ascent with an adaptive step."""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

MOMENTUM = 0.75
"""Share of the new step in a move; the rest is the last move."""

RAISED = 0.75
"""Share of steps that have to raise the loss for the step to stay as it is."""


def ascend_adaptively(
    start: list[Tensor],
    evaluate: Callable[[list[Tensor]], tuple[float, list[Tensor]]],
    move: Callable[[Sequence[Tensor], Sequence[Tensor], float], list[Tensor]],
    project: Callable[[Sequence[Tensor]], list[Tensor]],
    steps: int,
    step: float,
) -> list[Tensor]:
    """Run APGD and return its point with the highest loss.

    Args:
        start: Where it begins.
        evaluate: Loss and its gradients at given points.
        move: ``(points, gradients, step)`` to points that are bounded.
        project: Points, bounded.
        steps: How many; ``evaluate`` is called once more.
        step: Size of the first step. At each of :func:`checkpoints` it is halved, and the ascent
            goes on from the best point, if fewer than three in four steps since the one before have
            raised the loss, or if the best loss is still the same and the step was not halved
            there.

    Source: Croce and Hein, https://arxiv.org/abs/2003.01690, algorithm 1.
    """
    points = previous = best = start
    loss, gradients = evaluate(start)
    # A start of no finite loss is no best point.
    top, at_top = loss if math.isfinite(loss) else -math.inf, gradients
    known, halved, raised, last = top, False, 0, 0
    ends = set(checkpoints(steps))
    for k in range(1, steps + 1):
        moved = move(points, gradients, step)
        if k > 1:
            moved = project(
                [
                    x + MOMENTUM * (z - x) + (1 - MOMENTUM) * (x - old)
                    for x, z, old in zip(points, moved, previous, strict=True)
                ]
            )
        previous, points, before = points, moved, loss
        loss, gradients = evaluate(points)
        raised += loss > before
        if loss > top:
            best, top, at_top = points, loss, gradients
        if k in ends:
            halve = raised < RAISED * (k - last) or (not halved and top == known)
            if halve:
                step /= 2
                points, loss, gradients = best, top, at_top
            known, halved, raised, last = top, halve, 0, k
    return best


def checkpoints(steps: int) -> list[int]:
    """Numbers of steps after which the size of a step is looked at: 22 % of all, then after 3 %
    less than the time before, at least 6 %.
    """
    percent, length, found = 22, 22, []
    while percent < 100:
        found.append(-(-percent * steps // 100))
        length = max(length - 3, 6)
        percent += length
    return sorted(set(found))
