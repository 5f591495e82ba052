# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""NP and NP+: channel statistics scaled at random."""

import torch
from torch import Tensor

from mmfeataug.functional import statistic_dims
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.settings import non_negative

from .statistic import StatisticTransform


@AUGMENTATIONS.register_module()
class NormalizationPerturbation(StatisticTransform):
    r"""Channel means and deviations of each sample, scaled by factors drawn around 1.

    .. math:: y = a (x - \mu) + b \mu, \quad a, b \sim N(1, \sigma^2)

    With ``plus``, channels whose mean varies more over the batch are moved more:
    :math:`y = a x + \delta (b - a) \mu`, where :math:`\delta` is the variance of the mean over the
    batch, divided by its largest value. Paper: https://arxiv.org/abs/2211.04393.

    Args:
        at: Where, early.
        sigma: Deviation of the factors.
        plus: NP+, which needs two samples.
        prob, side, as_view, weight, bn: See :class:`StatisticTransform`.
    """

    def __init__(
        self, *, at: str, sigma: float = 0.75, plus: bool = False, prob: float = 0.5, **kwargs
    ) -> None:
        super().__init__(at=at, prob=prob, **kwargs)
        self.sigma, self.plus = non_negative('sigma', sigma, at), plus
        self.samples = 2 if plus else 1

    @property
    def name(self) -> str:
        """As the paper calls it, in letters that every logger takes."""
        return 'np_plus' if self.plus else 'np'

    @property
    def active(self) -> bool:
        """False if nothing is ever changed."""
        return super().active and self.sigma > 0

    def transform(self, feature: Tensor) -> Tensor:
        """See the class."""
        mean = feature.mean(statistic_dims(feature, 'spatial'), keepdim=True)
        a, b = (1 + self.sigma * torch.randn_like(mean) for _ in range(2))
        return scale_statistics(feature, mean, a, b, self.plus)


def scale_statistics(
    feature: Tensor, mean: Tensor, a: Tensor, b: Tensor, plus: bool = False
) -> Tensor:
    """NP's formula, or NP+'s; see :class:`NormalizationPerturbation`.

    Args:
        feature: ``(N, C, H, W)`` or ``(N, L, C)``.
        mean: Of each channel and sample, broadcasts to the feature.
        a, b: Factors, likewise.
        plus: NP+.
    """
    moved = (b - a) * mean
    if plus:
        spread = mean.detach().var(0, keepdim=True)
        moved = moved * (spread / spread.amax().clamp(min=torch.finfo(spread.dtype).tiny))
    return torch.addcmul(moved, a, feature)
