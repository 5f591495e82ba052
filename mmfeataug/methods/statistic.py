# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What the methods that exchange or draw statistics of features have in common."""

from abc import abstractmethod

import torch
from torch import Tensor

from mmfeataug.engine import FeatureTransform

from .settings import in_range


class StatisticTransform(FeatureTransform):
    """Changes statistics of a feature, with a probability.

    Args:
        at, side, as_view, weight, bn: See :class:`FeatureTransform`.
        prob: Probability that a call changes anything.
    """

    samples = 2
    """Least number of samples in a batch that the method can work with."""

    def __init__(self, *, at: str, prob: float = 0.5, **kwargs) -> None:
        super().__init__(at=at, **kwargs)
        self.prob = in_range('prob', prob, at)

    @property
    def active(self) -> bool:
        """False if nothing is ever changed."""
        return super().active and self.prob > 0

    def transform(self, feature: Tensor) -> Tensor:
        """:meth:`change`, or the feature itself.

        Raises:
            ValueError: If the first batch holds fewer samples than the method needs. A later one,
                such as the last of an epoch, is left as it is.
        """
        enough = self.accepts(
            len(feature) >= self.samples,
            f'{type(self).__name__} at {self.at!r} needs at least {self.samples} samples in a '
            f'batch of each process, got {len(feature)}: set '
            f'train_dataloader.batch_size={self.samples} or more',
        )
        if not enough or torch.rand(()) >= self.prob:
            return feature
        return self.change(feature)

    @abstractmethod
    def change(self, feature: Tensor) -> Tensor:
        """The changed feature; see :meth:`FeatureTransform.transform`."""

    def per_sample(self, feature: Tensor) -> tuple[int, ...]:
        """Shape of one number a sample, to broadcast over the feature."""
        return (len(feature), *[1] * (feature.dim() - 1))


def other_samples(feature: Tensor) -> Tensor:
    """A random permutation of the samples."""
    return torch.randperm(len(feature)).to(feature.device)
