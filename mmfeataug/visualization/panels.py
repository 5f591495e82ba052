# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Parts of pictures. Images are RGB in 0 to 255, ``(H, W, 3)``."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.visualization import Visualizer
from mmengine.visualization.utils import img_from_canvas
from torch import Tensor
from torch.nn import functional as F


def overlay(difference: Tensor, image: np.ndarray) -> np.ndarray:
    """Draw over an image where a feature was changed, by ``Visualizer.draw_featmap``.

    Args:
        difference: ``(C, h, w)``, made as large as the image; blue is none, red the largest mean
            over channels of its size.
        image: ``(H, W, 3)``.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    size = difference.abs().mean(0)[None, None].float()
    resized = F.interpolate(size, image.shape[:2], mode='bilinear', align_corners=False)[0]
    # It stretches colours from the smallest value to the largest, which would show the rounding of
    # a difference of one size: a row of zeros is put below, and taken off again.
    below = np.pad(image.clip(0, 255).astype(np.uint8), ((0, 1), (0, 0), (0, 0)))
    return np.asarray(Visualizer.draw_featmap(F.pad(resized, (0, 0, 0, 1)), below, alpha=0.5))[:-1]


def to_array(figure: Figure) -> np.ndarray:
    """The figure as RGB, ``(H, W, 3)`` uint8."""
    return img_from_canvas(FigureCanvasAgg(figure))


def save(figure: Figure, path: Path) -> Path:
    """Write the figure; returns ``path``. Folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches='tight')
    return path


def new_figure(rows: int, columns: int, title: str, scale: float = 1.0) -> Any:
    """A figure and its grid of axes, ``(rows, columns)``."""
    size = (3.4 * columns * scale, (2.6 * rows + 0.3) * scale)
    figure = Figure(figsize=size, layout='constrained', dpi=90)
    figure.suptitle(title, fontsize=10)
    return figure, figure.subplots(rows, columns, squeeze=False)


def histogram(axes: Any, before: Tensor, after: Tensor, unit: str | None) -> None:
    """Sizes of the differences of ``(C, ...)`` that are not 0, in a unit; None counts in standard
    deviations of the channels before.
    """
    gap = (after - before).flatten(1)
    if unit is None:
        spread = before.flatten(1).std(1, correction=0, keepdim=True)
        known = spread.squeeze(1) > 0
        gap, unit = gap[known] / spread[known], 'in standard deviations of the channel'
    sizes = gap[gap != 0].abs().numpy(force=True)
    # From 0 on: with unit='std' they may all be the same.
    axes.hist(sizes, bins=40, range=(0, 1.05 * float(sizes.max(initial=1e-12))))
    share = len(sizes) / max(1, before.numel())
    axes.set_title(f'|difference| of the {share:.0%} changed', fontsize=9)
    # The factor of the ticks is written on the right.
    axes.set_xlabel(unit, fontsize=8, loc='left')
    axes.set_yticks([])
    axes.locator_params(axis='x', nbins=5)
    axes.ticklabel_format(axis='x', scilimits=(-2, 3))


def heat(
    figure: Any,
    axes: Any,
    feature: Tensor,
    title: str,
    cmap: str = 'magma',
    top: float | None = None,
) -> None:
    """The mean over channels of ``|feature|``, ``(C, h, w)``, in colours from 0 to ``top`` (None:
    the largest).
    """
    values = feature.abs().mean(0).numpy(force=True)
    aspect = 'equal' if 1 / 3 < values.shape[0] / values.shape[1] < 3 else 'auto'
    drawn = axes.imshow(values, cmap=cmap, vmin=0, vmax=top, aspect=aspect)
    frame(axes, title)
    figure.colorbar(drawn, ax=axes, shrink=0.75)


def picture(axes: Any, image: np.ndarray, title: str, size: int = 9) -> None:
    """An image."""
    axes.imshow(image.clip(0, 255).astype(np.uint8))
    frame(axes, title, size)


def frame(axes: Any, title: str, size: int = 9) -> None:
    """A title and no ticks."""
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=size)
