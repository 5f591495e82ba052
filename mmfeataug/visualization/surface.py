# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Loss around the features of a batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor


def loss_surface(
    loss_at: Callable[[list[Tensor]], float],
    features: Sequence[Tensor],
    directions: tuple[Sequence[Tensor], Sequence[Tensor]],
    points: int = 21,
    tick: Callable[[], Any] = lambda: None,
) -> np.ndarray:
    """Losses on the plane that two directions span at a batch's features.

    Args:
        loss_at: Loss of a list of features.
        features: The middle of the plane.
        directions: Each holds one tensor for each feature; 1 on its axis.
        points: On each axis, from -1 to 1; odd, so that the features themselves are one of them.
        tick: Called after each point.

    Returns:
        ``(points, points)``; rows along the second direction, columns along the first.

    Raises:
        ValueError: If ``points`` is even or below 3.
    """
    if points < 3 or points % 2 == 0:
        raise ValueError(f'points={points!r}: give an odd number of at least 3')
    scale = torch.linspace(-1, 1, points, dtype=torch.float64).tolist()
    losses = np.empty((points, points))
    for row, b in enumerate(scale):
        for column, a in enumerate(scale):
            place = [f + a * u + b * v for f, u, v in zip(features, *directions, strict=True)]
            losses[row, column] = loss_at(place)
            tick()
    return losses


def draw_surface(surfaces: Mapping[str, np.ndarray], title: str, reach: str = '') -> Figure:
    """Draw one map per checkpoint, with contours; all with the same colours and levels.

    Args:
        surfaces: Of :func:`loss_surface`, by what stands above the map.
        title: Above all of them.
        reach: What 1 on an axis is.

    Raises:
        ValueError: If no loss is finite.
    """
    values = np.concatenate([s[np.isfinite(s)] for s in surfaces.values()])
    if not len(values):
        raise ValueError(
            'the loss is not finite anywhere on the surface, so there is nothing to draw (a box '
            'without area has an infinite loss): take another batch (--batch)'
        )
    low, high = float(values.min()), float(values.max())
    high = high if high > low else low + 1e-6
    levels = np.linspace(low, high, 13)[1:-1]
    figure = Figure(figsize=(4.4 * len(surfaces) + 0.8, 4.5), layout='constrained', dpi=130)
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(1, len(surfaces), squeeze=False)[0]
    for axes, (name, losses) in zip(grid, surfaces.items(), strict=True):
        ticks = np.linspace(-1, 1, len(losses))
        drawn = axes.pcolormesh(
            ticks, ticks, losses, cmap='viridis', vmin=low, vmax=high, shading='nearest'
        )
        if losses.max() > levels[0]:
            lines = axes.contour(ticks, ticks, losses, levels, colors='white', linewidths=0.7)
            axes.clabel(lines, fontsize=7, fmt='%.3g')
        middle = losses[len(losses) // 2, len(losses) // 2]
        axes.plot(0, 0, marker='+', color='white', markersize=9)
        along = losses[len(losses) // 2]
        axes.set_title(
            f'{name}\nloss {middle:.3g} at +, {along[-1]:.3g} at the right edge', fontsize=9
        )
        axes.set_xlabel(f'attack direction{reach}', fontsize=8)
        axes.set_aspect('equal')
    grid[0].set_ylabel(f'random direction{reach}', fontsize=8)
    figure.colorbar(drawn, ax=list(grid), shrink=0.8, label='training loss')
    return figure
