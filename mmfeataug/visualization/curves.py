# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Training curves side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def draw_curves(
    curves: Mapping[tuple[str, str], Sequence[float]],
    path: Path,
    window: int = 15,
    ylabel: str = 'clean loss',
) -> Path:
    """One panel a group, one line a run: the moving average over the values behind it.

    Args:
        curves: Values per iteration, by ``(group, run)``.
        path: PNG to write.
        window: Iterations to average over.
        ylabel: What the values are.

    Returns:
        ``path``.
    """
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(group for group, _ in curves))
    figure = Figure(figsize=(5.2 * len(groups), 3.6), layout='constrained')
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        for (owner, run), values in curves.items():
            if owner != group or not values:
                continue
            width = min(window, len(values))
            smooth = np.convolve(values, np.ones(width) / width, mode='valid')
            (line,) = axes.plot(np.arange(width, len(values) + 1), smooth, label=run)
            axes.plot(
                np.arange(1, len(values) + 1),
                values,
                color=line.get_color(),
                alpha=0.2,
                linewidth=0.8,
            )
        axes.set(title=group, xlabel='iteration', ylabel=ylabel)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    return path
