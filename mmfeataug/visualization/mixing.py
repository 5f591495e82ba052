# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""How images are mixed: parts, masks, mixtures and their targets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn import functional as F

from mmfeataug.functional import mean_inside, mix
from mmfeataug.methods import Mixture

from .panels import picture

COLOURS = ('tab:orange', 'tab:cyan', 'tab:pink', 'tab:green', 'tab:olive')


def record_mixtures(augmentation: Any) -> list[Mixture]:
    """Record the mixtures of an ``AdAutoMix``; the list is filled while it is attached: in each
    step the generator's, then the network's.
    """
    seen: list[Mixture] = []
    ask = augmentation.ask

    def noted(*args: Any) -> Mixture:
        mixture = ask(*args)
        masks = mixture.masks.detach().cpu()
        seen.append(Mixture(mixture.index.cpu(), mixture.shares.detach().cpu(), masks))
        return mixture

    augmentation.ask = noted
    return seen


def mixed_map(maps: Tensor, mixture: Mixture, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Label maps in the colours of their classes, mixed by the masks.

    Args:
        maps: ``(B, H, W)``; what is no index of ``palette`` is black.
        mixture: Of the batch.
        palette: RGB of each class, 0 to 255.

    Returns:
        RGB in 0 to 255, ``(B, H, W, 3)``.
    """
    table = F.pad(torch.tensor(palette, dtype=torch.float32), (0, 0, 0, 1))
    black, maps = len(palette), maps.long().cpu()
    painted = table[maps.where((maps >= 0) & (maps < black), black)].movedim(-1, 1)
    return mix(painted, mixture.index, mixture.masks).movedim(1, -1).numpy()


def draw_mixing(
    images: np.ndarray,
    samples: Sequence[Any],
    mixture: Mixture,
    meta: Mapping[str, Any] | None = None,
    rows: int = 4,
) -> Figure:
    """Draw one row per mixture: each part under its mask, the mixed image, its targets.

    Args:
        images: Of the batch, RGB in 0 to 255, ``(B, H, W, 3)``.
        samples: Their data samples. Boxes are drawn with their mass, the mask's mean inside them;
            label maps are mixed as colours; labels are named with their shares.
        mixture: Of the batch.
        meta: ``classes`` and ``palette`` of the data set.
        rows: At most so many mixtures.
    """
    meta = meta or {}
    first = samples[0]
    pixels = torch.from_numpy(np.ascontiguousarray(images)).movedim(-1, 1).float()
    mixed = mix(pixels, mixture.index, mixture.masks).movedim(1, -1).numpy()
    targets = None
    if 'gt_sem_seg' in first and 'gt_instances' not in first:
        maps = torch.cat([sample.gt_sem_seg.data for sample in samples])
        palette = meta.get('palette') or (255 * colormaps['tab20'](range(20))[:, :3]).tolist()
        targets = mixed_map(maps, mixture, palette)
    count = len(mixture.index)
    rows, columns = min(rows, len(images)), count + 1 + (targets is not None)
    width = 3.2
    height = width * images.shape[1] / images.shape[2] + 0.35
    size = (width * columns + 0.9, height * rows)
    figure = Figure(figsize=size, layout='constrained', dpi=90)
    grid = figure.subplots(rows, columns, squeeze=False)
    for b, line in enumerate(grid):
        for n, axes in enumerate(line[:count]):
            sample, mask = int(mixture.index[n, b]), mixture.masks[b, n].numpy()
            heat = axes.imshow(mask, cmap='magma', vmin=0, vmax=1)
            # Bright where much of the part is taken.
            name = f'image {sample}{_label(samples[sample], meta)}'
            title = f'share {mixture.shares[n]:.2f}, mask {mask.min():.2f} to {mask.max():.2f}'
            glow = 255 * colormaps['magma'](mask)[..., :3]
            picture(axes, 0.55 * images[sample] + 0.45 * glow, f'{name}: {title}', 8)
        picture(line[count], mixed[b], 'mixed', 8)
        if targets is not None:
            picture(line[count + 1], targets[b], 'mixed label map', 8)
        if 'gt_instances' in first:
            _boxes(line, b, samples, mixture)
    figure.colorbar(heat, ax=grid, shrink=0.6, label='mask')
    return figure


def _boxes(line: Any, b: int, samples: Sequence[Any], mixture: Mixture) -> None:
    parts = [samples[order[b]].gt_instances.bboxes.cpu() for order in mixture.index]
    masses = mean_inside(mixture.masks[b], parts)
    mixed = line[len(parts)]
    for n, (boxes, mass) in enumerate(zip(parts, masses, strict=True)):
        colour = COLOURS[n % len(COLOURS)]
        for (x1, y1, x2, y2), m in zip(boxes.tolist(), mass.tolist(), strict=True):
            for axes in (line[n], mixed):
                axes.add_patch(
                    Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1)
                )
            back = dict(facecolor=colour, edgecolor='none', pad=0.6)
            mixed.text(x1, y1, f'{m:.2f}', color='black', fontsize=7, va='top', bbox=back)
    mixed.set_title('mixed; a colour for each part; mass of boxes', fontsize=8)


def _label(sample: Any, meta: Mapping[str, Any]) -> str:
    if 'gt_label' not in sample:
        return ''
    classes = meta.get('classes') or ()
    labels = [int(i) for i in sample.gt_label]
    return ' (' + ', '.join(str(classes[i]) if i < len(classes) else str(i) for i in labels) + ')'
