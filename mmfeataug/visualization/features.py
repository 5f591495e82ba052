# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What augmentations do to features and images. Images are RGB in 0 to 255, ``(N, H, W, 3)``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmfeataug.engine import Augmentation, BatchAugmentation, FeatureTransform, Network


@dataclass
class Change:
    """A value at a tap, and what an augmentation made of it: ``(N, C, H, W)``, ``(N, L, C)`` or
    ``(R, C)``; ``images`` are the preprocessed copies that a method compares the batch with.
    """

    clean: Tensor
    view: Tensor
    images: Tensor | None = None


def record(augmentation: Augmentation) -> list[Change]:
    """Let an augmentation note what it does, and act in every pass whatever its ``prob``; the list
    fills while it is attached.
    """
    seen: list[Change] = []
    changed: Any = augmentation
    if hasattr(augmentation, 'prob'):
        changed.prob = 1.0

    def note(clean: Sequence[Tensor], views: Sequence[Tensor], images: Any = None) -> None:
        pairs = zip(clean, views, strict=True)
        seen.extend(Change(c.detach(), v.detach(), images) for c, v in pairs)

    if isinstance(augmentation, BatchAugmentation):
        make_terms = augmentation.terms

        class Watched(Network):
            def __call__(self, images: Tensor, **kwargs: Any) -> Any:
                result = super().__call__(images, **kwargs)
                if kwargs.get('weights') is None:
                    found = result[0] if kwargs.get('loss') else result
                    note(self.watch.features(self.clean), found, images.detach())
                return result

        def terms(inputs: Tensor, clean: Any, network: Network, generator: Any) -> Iterator:
            yield from make_terms(inputs, clean, Watched(**vars(network)), generator)

        changed.terms = terms
    elif isinstance(augmentation, FeatureTransform):
        make_change = augmentation.transform

        def transform(feature: Tensor) -> Tensor:
            out = make_change(feature)
            note([feature], [out])
            return out

        changed.transform = transform
    else:
        make_views = changed.views

        def views(features: list[Tensor], gradients: list[Tensor], tail: Any) -> Iterator:
            for view in make_views(features, gradients, tail):
                note(features, view.features)
                yield view

        changed.views = views
    return seen


def draw_change(
    change: Change, images: np.ndarray, title: str, path: Path, views: np.ndarray | None = None
) -> Path:
    """The first sample before and after, the difference, and the statistics of its channels. With
    ``views`` the tap is the image, and these are its views.
    """
    figure, grid = _figure(2, 3, title)
    _picture(grid[0, 0], images[0], 'image')
    if views is None:
        before, after = (_map(f[0], images) for f in (change.clean, change.view))
        top = max(float(f.abs().mean(0).max()) for f in (before, after))
        _heat(figure, grid[0, 1], before, 'clean: mean over channels of |f|', 'viridis', top)
        _heat(figure, grid[0, 2], after, 'view', 'viridis', top)
        _heat(figure, grid[1, 0], after - before, 'mean over channels of |view - f|')
    else:
        before, after = (torch.from_numpy(i[0]).permute(2, 0, 1) for i in (images, views))
        difference = views[0] - images[0]
        most = max(np.abs(difference).max(), 1e-6)
        _picture(grid[0, 1], views[0], 'view')
        shown = 127.5 + 127.5 * difference / most
        _picture(grid[0, 2], shown, f'difference, x {127.5 / most:.3g}, grey is none')
        grid[1, 0].hist(np.abs(difference).ravel(), bins=40, range=(0, max(most, 1)))
        grid[1, 0].set_yticks([])
        grid[1, 0].set_title('|difference| of pixels, grey levels', fontsize=9)
    for axes, name in zip(grid[1, 1:], ('mean', 'std'), strict=True):
        x, y = (getattr(f.flatten(1), name)(1).numpy(force=True) for f in (before, after))
        limits = (min(x.min(), y.min()), max(x.max(), y.max()))
        axes.plot(limits, limits, color='grey', linewidth=0.8)
        axes.scatter(x, y, s=14, alpha=0.8, c=None if views is None else ['red', 'green', 'blue'])
        axes.set_title(f'{name} of each channel; line: unchanged', fontsize=9)
        axes.set_xlabel('clean', fontsize=8)
        axes.set_ylabel('view', fontsize=8)
        axes.grid(alpha=0.3)
    return _save(figure, path)


def draw_copies(
    change: Change, images: np.ndarray, title: str, path: Path, copies: np.ndarray
) -> Path:
    """Images, their distorted copies and, where features have positions, how far these are apart;
    up to four columns.
    """
    columns = min(4, len(images))
    mapped = change.clean.dim() > 2 and len(change.clean) == len(images)
    figure, grid = _figure(3 if mapped else 2, columns, title, 0.68)
    apart = [_map(f, images) for f in (change.view - change.clean)[:columns]] if mapped else []
    for i in range(columns):
        _picture(grid[0, i], images[i], 'image')
        _picture(grid[1, i], copies[i], 'distorted copy')
        if mapped:
            top = max(float(a.abs().mean(0).max()) for a in apart)
            last = figure if i == columns - 1 else None
            _heat(last, grid[2, i], apart[i], '|difference| of features', 'magma', top)
    return _save(figure, path)


def draw_rows(change: Change, images: np.ndarray, title: str, path: Path, classifier: Any) -> Path:
    """Inputs of a linear classifier before and after, in the plane of their two main directions;
    the classifier colours them, and says how sure it is of them.
    """
    rows = [f.movedim(1, -1).reshape(-1, f.shape[1]).float() for f in (change.clean, change.view)]
    moved = (rows[0] != rows[1]).any(1)
    weight, bias = classifier.weight.detach().flatten(1), classifier.bias.detach()
    scores = [F.linear(r[moved], weight, bias).softmax(1) for r in rows]
    label = scores[0].argmax(1)
    units = [F.normalize(r[moved], dim=1) for r in rows]
    center = units[0].mean(0)
    main = torch.linalg.svd(units[0] - center, full_matrices=False).Vh[:2]
    start, end = (((u - center) @ main.t()).numpy(force=True) for u in units)
    few = np.arange(len(start))[:: max(1, len(start) // 60)]
    figure, (left, middle, right) = _figure(1, 3, title, 1.1)
    _picture(left, images[0], 'first image of the batch')
    dots = middle.scatter(*start.T, c=label.tolist(), cmap='tab20', s=12, vmin=0, vmax=19)
    for i in few:
        arrow = dict(arrowstyle='->', color=dots.cmap(dots.norm(int(label[i]))), alpha=0.7)
        middle.annotate('', end[i], start[i], arrowprops=arrow)
    points = np.concatenate([start, end[few]])
    middle.update_datalim(points)
    middle.autoscale_view()
    name = f'{len(start)} rows, {len(few)} with an arrow to the view'
    _frame(middle, f'{name}\ncolour: class predicted')
    sure = [s.gather(1, label[:, None]).squeeze(1).numpy(force=True) for s in scores]
    right.hist(sure, bins=20, range=(0, 1), label=['clean', 'view'])
    right.set_title('probability of the class\npredicted for the clean row', fontsize=9)
    right.legend(frameon=False)
    return _save(figure, path)


def _figure(rows: int, columns: int, title: str, scale: float = 1.0) -> Any:
    from matplotlib.figure import Figure

    size = (3.4 * columns * scale, (2.6 * rows + 0.3) * scale)
    figure = Figure(figsize=size, layout='constrained')
    figure.suptitle(title, fontsize=10)
    return figure, figure.subplots(rows, columns, squeeze=rows == 1)


def _map(feature: Tensor, images: np.ndarray) -> Tensor:
    """``(C, h, w)`` of a sample; tokens ``(L, C)`` are folded to the proportions of the images."""
    if feature.dim() == 3:
        return feature.float()
    height = round((len(feature) * images.shape[1] / images.shape[2]) ** 0.5)
    height = height if height and len(feature) % height == 0 else 1
    return feature.float().t().reshape(-1, height, len(feature) // height)


def _heat(
    bar: Any, axes: Any, feature: Tensor, title: str, cmap: str = 'magma', top: float | None = None
) -> None:
    values = feature.abs().mean(0).numpy(force=True)
    drawn = axes.imshow(values, cmap=cmap, vmin=0, vmax=top)
    _frame(axes, title)
    if bar is not None:
        bar.colorbar(drawn, ax=axes, shrink=0.75)


def _picture(axes: Any, image: np.ndarray, title: str) -> None:
    axes.imshow(image.clip(0, 255).astype(np.uint8))
    _frame(axes, title)


def _frame(axes: Any, title: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=90, bbox_inches='tight')
    return path
