# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What augmentations do to features and images. Images are RGB in 0 to 255, ``(N, H, W, 3)``."""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from mmfeataug.engine import Augmentation, find_module
from mmfeataug.methods import SeA

from .panels import frame, heat, histogram, new_figure, overlay, picture
from .record import Change, Show


def draw(
    augmentation: Augmentation,
    change: Change,
    images: np.ndarray,
    title: str,
    model: nn.Module,
    show: Show,
    batch: int | None = None,
) -> Figure:
    """Draw an augmentation by the picture for its kind.

    Args:
        augmentation: What made the change.
        change: Of :func:`mmfeataug.visualization.record`.
        images: Of the batch, the same samples as in ``change``.
        title: Above the picture.
        model: For the classifier whose inputs SeA moves.
        show: Of :func:`mmfeataug.visualization.shown`.
        batch: Number of samples in the whole batch; None is ``len(images)``.
    """
    if change.images is not None:
        return draw_copies(change, images, title, show(change.images))
    if isinstance(augmentation, SeA) and _moved(change).sum() > 2:
        return draw_rows(change, images, title, find_module(model, augmentation.at))
    views = show(change.view) if augmentation.at == 'inputs' else None
    # A map of a region of interest has no place in the whole image.
    located = change.is_map and change.count == (len(images) if batch is None else batch)
    return draw_change(change, images, title, views, located)


def draw_change(
    change: Change,
    images: np.ndarray,
    title: str,
    views: np.ndarray | None = None,
    located: bool = True,
) -> Figure:
    """The first sample before and after, the difference, where in the image it is, and the
    statistics of its channels.

    Args:
        change: Maps; or rows ``(R, C)``, which are drawn all together.
        images: Of the batch.
        title: Above the picture.
        views: Given, the tap is the image, and these are its views.
        located: Whether the map is one of the whole image. Tokens have to fold to its proportions.
    """
    figure, grid = new_figure(2, 4, title)
    picture(grid[0, 0], images[0], 'image' if located else 'first image of the batch')
    if views is not None:
        before, after = (torch.from_numpy(i[0]).permute(2, 0, 1) for i in (images, views))
        most = max(float((after - before).abs().max()), 1e-6)
        picture(grid[0, 1], views[0], 'view')
        gap = (127.5 + 127.5 / most * (after - before)).permute(1, 2, 0).numpy()
        picture(grid[0, 2], gap, f'difference, x {127.5 / most:.3g}, grey is none')
        heat(figure, grid[0, 3], after - before, 'mean over colours of |difference|')
    elif change.is_map:
        before, after = (_map(f[0], images) for f in (change.clean, change.view))
        top = max(float(f.abs().mean(0).max()) for f in (before, after))
        heat(figure, grid[0, 1], before, 'clean: mean over channels of |f|', 'viridis', top)
        heat(figure, grid[0, 2], after, 'view', 'viridis', top)
        heat(figure, grid[0, 3], after - before, 'mean over channels of |view - f|')
    else:
        before, after = (f.t() for f in (change.clean, change.view))
        top = float(max(f.abs().max() for f in (before, after)))
        across = 'rows down, channels across'
        heat(figure, grid[0, 1], change.clean[None], f'clean: |f|, {across}', 'viridis', top)
        heat(figure, grid[0, 2], change.view[None], 'view', 'viridis', top)
        heat(figure, grid[0, 3], (change.view - change.clean)[None], '|view - f|')
    if located and _has_places(change, images):
        picture(grid[1, 0], overlay(after - before, images[0]), '|view - f| over image; blue: 0')
    else:
        grid[1, 0].axis('off')
    histogram(grid[1, 1], before, after, 'grey levels' if views is not None else None)
    colours = None if views is None else ['red', 'green', 'blue']
    for axes, name in zip(grid[1, 2:], ('mean', 'std'), strict=True):
        x, y = (_statistic(f, name) for f in (before, after))
        axes.axhline(0, color='grey', linewidth=0.8)
        axes.scatter(x, y - x, s=14, alpha=0.8, c=colours)
        axes.set_title(f'{name} of each channel', fontsize=9)
        axes.set_xlabel('clean', fontsize=8)
        axes.set_ylabel('view - clean', fontsize=8)
        axes.ticklabel_format(axis='y', scilimits=(-2, 3))
        axes.grid(alpha=0.3)
    return figure


def draw_copies(change: Change, images: np.ndarray, title: str, copies: np.ndarray) -> Figure:
    """Images and the copies that a method compares them with; for features with
    positions, also their distance in the image. One row per image, up to four.
    """
    rows = min(4, len(images))
    mapped = len(change.clean) == len(images) and _has_places(change, images)
    figure, grid = new_figure(rows, 4 if mapped else 2, title, 0.8)
    apart = [_map(f, images) for f in (change.view - change.clean)[:rows]] if mapped else []
    top = max((float(a.abs().mean(0).max()) for a in apart), default=None)
    for i, line in enumerate(grid):
        picture(line[0], images[i], 'image')
        picture(line[1], copies[i], 'copy')
        if mapped:
            heat(figure, line[2], apart[i], '|difference| of features', 'magma', top)
            picture(line[3], overlay(apart[i], copies[i]), 'over the copy; blue: 0')
    return figure


def draw_rows(change: Change, images: np.ndarray, title: str, classifier: Any) -> Figure:
    """Inputs of a linear classifier before and after, in the plane of their two principal
    directions, coloured by class, with the confidence of the classifier. At least three must move.
    """
    moved = _moved(change)
    rows = [_rows(f)[moved] for f in (change.clean, change.view)]
    weight = classifier.weight.detach().cpu().flatten(1)
    bias = None if classifier.bias is None else classifier.bias.detach().cpu()
    scores = [F.linear(r, weight, bias).softmax(1) for r in rows]
    label = scores[0].argmax(1)
    units = [F.normalize(r, dim=1) for r in rows]
    center = units[0].mean(0)
    main = torch.linalg.svd(units[0] - center, full_matrices=False).Vh[:2]
    start, end = (((u - center) @ main.t()).numpy(force=True) for u in units)
    few = np.arange(len(start))[:: max(1, len(start) // 60)]
    figure, ((left, middle, right),) = new_figure(1, 3, title, 1.1)
    picture(left, images[0], 'first image of the batch')
    dots = middle.scatter(*start.T, c=label.tolist(), cmap='tab20', s=12, vmin=0, vmax=19)
    for i in few:
        arrow = dict(arrowstyle='->', color=dots.cmap(dots.norm(int(label[i]))), alpha=0.7)
        middle.annotate('', end[i], start[i], arrowprops=arrow)
    points = np.concatenate([start, end[few]])
    middle.update_datalim(points)
    middle.autoscale_view()
    name = f'{len(start)} rows, {len(few)} with an arrow to the view'
    frame(middle, f'{name}\ncolour: class predicted')
    sure = [s.gather(1, label[:, None]).squeeze(1).numpy(force=True) for s in scores]
    right.hist(sure, bins=20, range=(0, 1), label=['clean', 'view'])
    right.set_title('probability of the class\npredicted for the clean row', fontsize=9)
    right.legend(frameon=False)
    return figure


def _rows(value: Tensor) -> Tensor:
    """``(R, C)``: a row for each position, as a classifier gets them."""
    if value.dim() < 4:
        return value.flatten(0, -2).float()
    return value.movedim(1, -1).flatten(0, -2).float()


def _moved(change: Change) -> Tensor:
    return (_rows(change.clean) != _rows(change.view)).any(1)


def _map(feature: Tensor, images: np.ndarray) -> Tensor:
    """``(C, h, w)`` of a sample; tokens ``(L, C)`` are folded to the proportions of the images, or
    are one row if they are no such grid.
    """
    if feature.dim() == 3:
        return feature.float()
    height, width = _grid(len(feature), images) or (1, len(feature))
    return feature[-height * width :].float().t().reshape(-1, height, width)


def _has_places(change: Change, images: np.ndarray) -> bool:
    """Whether its positions are places in the images."""
    tokens = change.clean.shape[1] if change.clean.dim() == 3 else None
    return change.is_map and (tokens is None or _grid(tokens, images) is not None)


def _grid(tokens: int, images: np.ndarray) -> tuple[int, int] | None:
    """Rows and columns of so many tokens, in the proportions of the images; one or two more, of the
    class and of distillation, come first.
    """
    height = min(tokens, max(1, round((tokens * images.shape[1] / images.shape[2]) ** 0.5)))
    width, more = divmod(tokens, height)
    return (height, width) if more <= 2 else None


def _statistic(feature: Tensor, name: str) -> np.ndarray:
    values = feature.flatten(1)
    found = values.mean(1) if name == 'mean' else values.std(1, correction=0)
    return found.numpy(force=True)
