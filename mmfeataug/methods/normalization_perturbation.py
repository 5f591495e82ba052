# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""NP and NP+: channel statistics scaled at random."""

import torch
from torch import Tensor

from mmfeataug.functional import perturb_statistics, statistic_dims
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.settings import non_negative

from .statistic import StatisticTransform


@AUGMENTATIONS.register_module()
class NormalizationPerturbation(StatisticTransform):
    r"""Scale the channel means and deviations of each sample by random factors around 1.

    .. math:: y = a (x - \mu) + b \mu, \quad a, b \sim N(1, \sigma^2)

    With ``plus``, a mean is scaled in proportion to its variation over the batch:

    .. math:: y = a (x - \mu) + (1 + s (b - 1)) \mu, \quad s = 1.5 \, d / max_c(d)

    where :math:`d` is the standard deviation of :math:`\mu` over the batch. Paper:
    https://arxiv.org/abs/2211.04393; NP+ follows public copies of its listing; the copy in MRFP
    acts behind the stem and behind the first stage, each with probability 0.5.

    Args:
        at: Place, early.
        sigma: Deviation of the factors; 0.75 is the listing's.
        plus: NP+, which needs two samples.
        prob, side, as_view, weight, bn, learn: See :class:`StatisticTransform`.
    """

    strength_name = 'sigma'

    def __init__(
        self, *, at: str, sigma: float = 0.75, plus: bool = False, prob: float = 0.5, **kwargs
    ) -> None:
        super().__init__(at=at, prob=prob, **kwargs)
        self.sigma, self.plus = non_negative('sigma', sigma, at), plus
        self.least_samples = 2 if plus else 1

    @property
    def name(self) -> str:
        """As the paper calls it, in letters that every logger takes."""
        return 'np_plus' if self.plus else 'np'

    def transform(self, feature: Tensor) -> Tensor:
        """See the class."""
        mean = feature.mean(statistic_dims(feature, 'spatial'), keepdim=True)
        a, b = (1 + self.sigma * torch.randn_like(mean) for _ in range(2))
        if self.plus:
            b = 1 + sensitivity(mean) * (b - 1)
        return perturb_statistics(feature, b, a, relu=False, mean=mean)


def sensitivity(mean: Tensor) -> Tensor:
    """NP+'s ``s``: 1.5 for the channel whose mean varies most over the batch, 0 for one whose mean
    does not vary; without a gradient.

    Args:
        mean: Of each channel and sample, ``(N, C, 1, 1)`` or ``(N, 1, C)``; ``N`` at least 2.
    """
    spread = mean.detach().std(0, keepdim=True)
    return 1.5 * spread / spread.amax().clamp(min=torch.finfo(spread.dtype).tiny)
