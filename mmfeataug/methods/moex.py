# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""MoEx: moments exchanged between samples."""

from torch import Tensor

from mmfeataug.functional import AXES, swap_statistics
from mmfeataug.registry import AUGMENTATIONS

from .statistic import StatisticTransform, other_samples


@AUGMENTATIONS.register_module()
class MoEx(StatisticTransform):
    """Replace the moments of each sample by those of another one, per position over channels.

    Features only: the paper also mixes labels, which is not possible in the same way for boxes and
    maps. The other sample gets a gradient. Paper: https://arxiv.org/abs/2002.11102, whose release
    acts behind the stem's max pool on ImageNet, with probability 1 and 0.9 of the loss on a
    sample's own label; on CIFAR with probability 0.25 and 0.5 of the loss.

    Args:
        at: Place, early: ``'backbone.maxpool'`` (the release), ``'backbone.layer1'``.
        axes: What moments are taken over; ``'channel'`` is the paper's choice.
        prob, side, as_view, weight, bn, learn: See :class:`StatisticTransform`.
    """

    def __init__(self, *, at: str, axes: str = 'channel', prob: float = 0.5, **kwargs) -> None:
        super().__init__(at=at, prob=prob, **kwargs)
        if axes not in AXES[:2]:
            raise ValueError(f'axes={axes!r} at {at!r}: choose one of {", ".join(AXES[:2])}')
        self.axes = axes

    def transform(self, feature: Tensor) -> Tensor:
        """See the class."""
        return swap_statistics(feature, other_samples(feature), self.axes)
