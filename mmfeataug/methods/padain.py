# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""pAdaIN: statistics swapped within the batch."""

from torch import Tensor

from mmfeataug.functional import swap_statistics
from mmfeataug.registry import AUGMENTATIONS

from .statistic import StatisticTransform, other_samples


@AUGMENTATIONS.register_module()
class PAdaIN(StatisticTransform):
    """Now and then, each sample with the channel means and deviations of another one.

    Paper: https://arxiv.org/abs/2010.05785. It swaps before every layer with a small probability;
    here each place is an entry of its own.

    Args:
        at: Where.
        prob, side, as_view, weight, bn: See :class:`StatisticTransform`.
    """

    def __init__(self, *, at: str, prob: float = 0.01, **kwargs) -> None:
        super().__init__(at=at, prob=prob, **kwargs)

    def transform(self, feature: Tensor) -> Tensor:
        """See the class."""
        return swap_statistics(feature, other_samples(feature), 'spatial')
