# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""pAdaIN: statistics swapped within the batch."""

from torch import Tensor

from mmfeataug.functional import swap_statistics
from mmfeataug.registry import AUGMENTATIONS

from .statistic import StatisticTransform, other_samples


@AUGMENTATIONS.register_module()
class PAdaIN(StatisticTransform):
    """With a small probability, replace channel means and deviations by those of another sample.

    The other sample gets no gradient. Paper: https://arxiv.org/abs/2010.05785. Its release swaps
    after every convolution, before its batch norm; here each place is a separate entry.

    Args:
        at: Place; ``'backbone.layer1.0.conv1'`` is a place of the release.
        prob: Of a swap; 0.01 is the release's.
        side, as_view, weight, bn, learn: See :class:`StatisticTransform`.
    """

    def __init__(self, *, at: str, prob: float = 0.01, **kwargs) -> None:
        super().__init__(at=at, prob=prob, **kwargs)

    def transform(self, feature: Tensor) -> Tensor:
        """See the class."""
        return swap_statistics(feature, other_samples(feature), 'spatial', detach=True)
