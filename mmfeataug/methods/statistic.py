# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Base of methods that exchange or draw statistics of features."""

import torch
from torch import Tensor

from mmfeataug.engine import FeatureTransform
from mmfeataug.functional import too_few
from mmfeataug.utils.settings import in_range


class StatisticTransform(FeatureTransform):
    """Change statistics of a feature, with a probability.

    Args:
        at, side, as_view, weight, bn: See :class:`FeatureTransform`.
        prob: Probability that a call changes anything.
    """

    samples = 2
    """Least number of samples in a batch that the method can work with."""
    axes = 'spatial'
    """What its statistics are taken over; see :func:`mmfeataug.functional.statistic_dims`."""

    def __init__(self, *, at: str, prob: float = 0.5, **kwargs) -> None:
        super().__init__(at=at, **kwargs)
        self.prob = in_range('prob', prob, at)

    @property
    def active(self) -> bool:
        """False if nothing is ever changed."""
        return super().active and self.prob > 0

    def fault(self, features: list[Tensor]) -> str:
        """Too few samples, or too few values to take a deviation of."""
        least = min(map(len, features))
        if least < self.samples:
            return (
                f'{type(self).__name__} at {self.at!r} needs at least {self.samples} samples in a '
                f'batch of each process, got {least}: set '
                f'train_dataloader.batch_size={self.samples} or more'
            )
        if not too_few(features, self.axes):
            return ''
        shapes = ', '.join(str(tuple(f.shape)) for f in features)
        return (
            f'{type(self).__name__} at {self.at!r} takes deviations over axes={self.axes!r}, and '
            f'features of shape {shapes} have fewer than two values there: choose another place, '
            'such as a layer before the pooling'
        )

    def is_drawn(self, generator: torch.Generator | None = None) -> bool:
        """With the probability ``prob``; see :meth:`FeatureTransform.is_drawn`."""
        return bool(torch.rand((), generator=generator) < self.prob)

    def per_sample(self, feature: Tensor) -> tuple[int, ...]:
        """Shape of one number per sample, to broadcast over the feature."""
        return (len(feature), *[1] * (feature.dim() - 1))


def other_samples(feature: Tensor) -> Tensor:
    """A random permutation of the samples."""
    return torch.randperm(len(feature)).to(feature.device)
