# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Base of methods that exchange or draw statistics of features."""

import torch
from torch import Tensor

from mmfeataug.engine import FeatureTransform
from mmfeataug.utils.settings import in_range


class StatisticTransform(FeatureTransform):
    """Change statistics of a feature, with a probability.

    Args:
        at, side, as_view, weight, bn, learn: See :class:`FeatureTransform`.
        prob: Probability that a call changes anything.
    """

    least_samples = 2
    axes = 'spatial'

    def __init__(self, *, at: str, prob: float = 0.5, **kwargs) -> None:
        super().__init__(at=at, **kwargs)
        self.prob = in_range('prob', prob, at)

    @property
    def active(self) -> bool:
        """False if nothing is ever changed."""
        strength = getattr(self, self.strength_name) if self.strength_name else 1.0
        return super().active and self.prob > 0 and strength != 0

    def is_drawn(self, generator: torch.Generator | None = None) -> bool:
        """With the probability ``prob``; see :meth:`FeatureTransform.is_drawn`."""
        return bool(torch.rand((), generator=generator) < self.prob)


def other_samples(feature: Tensor) -> Tensor:
    """A random permutation of the samples."""
    return torch.randperm(len(feature)).to(feature.device)
