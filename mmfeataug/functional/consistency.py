# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Distances between features or predictions of two passes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .statistics import channel_dim

NORMS = ('mse', 'l1', 'l2')
FEW = 8
"""Deviations of fewer values are by chance next to nothing."""


def feature_distance(
    x: Tensor, target: Tensor, norm: str = 'mse', scale_channels: bool = False
) -> Tensor:
    """Distance of two features.

    Args:
        x: ``(N, C, H, W)``, ``(N, L, C)`` or ``(R, C)``.
        target: Same shape.
        norm: ``'mse'`` or ``'l1'``: mean over all elements of the squared or absolute difference;
            ``'l2'``: length of the difference of a sample, mean over samples.
        scale_channels: Divide by the standard deviation of the target's channel over the batch, so
            that channels and layers of different scale count equally; by that of the whole target
            where a channel has less than 8 values.

    Returns:
        A scalar.

    Raises:
        ValueError: For another norm, or for shapes that differ.
    """
    if x.shape != target.shape:
        raise ValueError(
            f'features of shapes {tuple(x.shape)} and {tuple(target.shape)} cannot be compared'
        )
    if norm not in NORMS:
        raise ValueError(f'norm={norm!r}: choose one of {", ".join(NORMS)}')
    difference = x - target
    if scale_channels:
        channel = channel_dim(x)
        others = tuple(d for d in range(x.dim()) if d != channel)
        if target.numel() < FEW * target.shape[channel]:
            others = tuple(range(x.dim()))
        variance = target.detach().var(others, correction=0, keepdim=True)
        difference = difference / (variance + 1e-5).sqrt()
    if norm == 'mse':
        return difference.square().mean()
    if norm == 'l1':
        return difference.abs().mean()
    # Its derivative at 0 is 0.
    return torch.linalg.vector_norm(difference.flatten(1), dim=1).mean()


def prediction_divergence(logits: Tensor, target: Tensor, sigmoid: bool = False) -> Tensor:
    """Kullback-Leibler divergence of the predicted distribution from a target one, mean over
    predictions.

    Args:
        logits: Of the copy; classes are the channels of ``(N, K, H, W)`` or ``(R, K)``.
        target: Of the clean image, same shape.
        sigmoid: Treat each class as a separate binary decision, as in RetinaNet.

    Returns:
        A scalar.

    Source: stability training, https://arxiv.org/abs/1604.04326, equation 6.
    """
    if logits.shape != target.shape:
        raise ValueError(
            f'predictions of shapes {tuple(logits.shape)} and {tuple(target.shape)} cannot be '
            'compared: the passes must look at the same proposals, see hold'
        )
    if sigmoid:
        p = target.sigmoid()
        cross = F.binary_cross_entropy_with_logits(logits, p, reduction='none')
        own = F.binary_cross_entropy_with_logits(target, p, reduction='none')
    else:
        channel = channel_dim(logits)
        p = target.softmax(channel)
        cross = -(p * logits.log_softmax(channel)).sum(channel)
        own = -(p * target.log_softmax(channel)).sum(channel)
    return (cross - own).mean()
