# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Mixtures of samples, and means of masks inside boxes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .statistics import channel_dim


def mix(x: Tensor, index: Tensor, masks: Tensor) -> Tensor:
    """Weighted sums of samples: ``sum_n masks[:, n] * x[index[n]]``.

    Args:
        x: ``(B, C, H, W)``.
        index: ``(N, B)``; the samples that each mixture is made of.
        masks: ``(B, N, H, W)``, or ``(B, N, 1, 1)`` for the same share everywhere; they sum to 1
            over ``N``.

    Returns:
        ``(B, C, H, W)``.
    """
    return sum(masks[:, n, None] * x[index[n]] for n in range(len(index)))  # type: ignore[return-value]


def mean_inside(masks: Tensor, boxes: Sequence[Tensor]) -> list[Tensor]:
    """Mean of a mask in every box.

    Args:
        masks: ``(M, H, W)``.
        boxes: For every mask ``(G, 4)``, corners in pixels; widened to whole pixels, at least one.

    Returns:
        For every mask ``(G,)``.
    """
    height, width = masks.shape[-2:]
    # Sums over everything above and left of each corner, in double precision.
    total = torch.nn.functional.pad(masks.double().cumsum(-1).cumsum(-2), (1, 0, 1, 0))
    found = []
    for area, corners in zip(total, boxes, strict=True):
        x1 = corners[:, 0].floor().long().clamp(0, width - 1)
        y1 = corners[:, 1].floor().long().clamp(0, height - 1)
        x2 = torch.maximum(corners[:, 2].ceil().long().clamp(max=width), x1 + 1)
        y2 = torch.maximum(corners[:, 3].ceil().long().clamp(max=height), y1 + 1)
        inside = area[y2, x2] - area[y1, x2] - area[y2, x1] + area[y1, x1]
        found.append((inside / ((x2 - x1) * (y2 - y1))).to(masks.dtype))
    return found


def weighted_cosine(x: Tensor, parts: Sequence[Tensor], shares: Tensor) -> Tensor:
    """Cosine similarity of mixtures to their parts, each part with its share; mean over all.

    Args:
        x: ``(B, C)``, ``(B, C, H, W)`` or ``(B, L, C)``: features of mixtures.
        parts: ``N`` of the same shape.
        shares: ``(B, N)``, or ``(B, N, H, W)``; they sum to 1 over ``N``.

    Returns:
        Scalar in -1 to 1.
    """
    channels = channel_dim(x)
    alike = torch.stack([torch.cosine_similarity(x, p, dim=channels) for p in parts], dim=1)
    if shares.dim() == 2:
        alike = alike.flatten(2).mean(2) if alike.dim() > 2 else alike
    return (shares * alike).sum(1).mean()
