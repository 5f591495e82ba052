# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""MixStyle: mixed channel statistics of two samples."""

import torch
from torch import Tensor

from mmfeataug.functional import mean_std, replace_statistics, statistic_dims
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.settings import positive

from .statistic import StatisticTransform, other_samples


@AUGMENTATIONS.register_module()
class MixStyle(StatisticTransform):
    r"""Mix the channel means and deviations of each sample with those of another sample.

    :math:`\lambda \sim Beta(\alpha, \alpha)` per sample; statistics get no gradient. Paper:
    https://arxiv.org/abs/2104.02008; the authors apply it behind several early layers, never the
    last.

    Args:
        at: Place, such as ``'backbone.layer1'``.
        alpha: Of the Beta distribution; small values leave one of the two styles nearly pure.
        prob, side, as_view, weight, bn, learn: See :class:`StatisticTransform`.
    """

    def __init__(self, *, at: str, alpha: float = 0.1, prob: float = 0.5, **kwargs) -> None:
        super().__init__(at=at, prob=prob, **kwargs)
        self.alpha = positive('alpha', alpha, at)

    def transform(self, feature: Tensor) -> Tensor:
        """See the class."""
        shape = (len(feature), *[1] * (feature.dim() - 1))
        share = torch.distributions.Beta(self.alpha, self.alpha).sample(shape).to(feature)
        return mix_statistics(feature, other_samples(feature), share)


def mix_statistics(feature: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """The feature with ``share`` of its own statistics and the rest of sample ``other``'s.

    Args:
        feature: ``(N, C, H, W)`` or ``(N, L, C)``.
        other: ``(N,)`` index of another sample, for each.
        share: In 0 to 1, broadcasts to the feature.
    """
    own = mean_std(feature.detach(), statistic_dims(feature, 'spatial'), 1e-6)
    mean, std = (share * s + (1 - share) * s[other] for s in own)
    return replace_statistics(feature, own, (mean, std))
