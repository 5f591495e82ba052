# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""DSU: channel statistics drawn around their values, with their spread in the batch."""

import torch
from torch import Tensor

from mmfeataug.functional import mean_std, replace_statistics, statistic_dims
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.settings import non_negative

from .statistic import StatisticTransform


@AUGMENTATIONS.register_module()
class DSU(StatisticTransform):
    r"""Draw the channel means and deviations of each sample around their values.

    .. math:: \mu' = \mu + \epsilon_\mu \Sigma_\mu, \quad \sigma' = \sigma + \epsilon_\sigma
        \Sigma_\sigma

    with :math:`\Sigma` the deviation of the statistic over the batch, for each channel. Statistics
    take part in the gradient. Paper: https://arxiv.org/abs/2202.03958; the authors apply it behind
    the stem and every stage.

    Args:
        at: Place.
        factor: Factor of the spread; 1 is the paper's.
        prob, side, as_view, weight, bn, learn: See :class:`StatisticTransform`.
    """

    strength_name = 'factor'

    def __init__(self, *, at: str, factor: float = 1.0, prob: float = 0.5, **kwargs) -> None:
        super().__init__(at=at, prob=prob, **kwargs)
        self.factor = non_negative('factor', factor, at)

    def transform(self, feature: Tensor) -> Tensor:
        """See the class."""
        own = mean_std(feature, statistic_dims(feature, 'spatial'), 1e-6)
        mean, std = (s + torch.randn_like(s) * self.factor * uncertainty(s) for s in own)
        return replace_statistics(feature, own, (mean, std))


def uncertainty(statistic: Tensor) -> Tensor:
    """Standard deviation of a statistic over the samples; dimension 0 is kept with size 1."""
    return (statistic.var(0, keepdim=True) + 1e-6).sqrt()
