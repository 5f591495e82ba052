# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""FMA: a loss term that keeps feature maps of distorted images near those of clean images."""

from collections.abc import Sequence

from torch import Tensor

from mmfeataug.functional import NORMS, feature_distance
from mmfeataug.registry import AUGMENTATIONS

from .consistency import Consistency


@AUGMENTATIONS.register_module()
class FMA(Consistency):
    r"""Consistency of feature maps, for fine-tuning with combined augmentations.

    .. math:: L = L_{task}(x) + \lambda \, mean_l \, D(\phi_l(T_k(x)), \phi_l(x))

    with the distortion :math:`T_k` drawn for each image. Paper: https://arxiv.org/abs/2012.01386.
    Layers, norm, weight and strengths of the paper are not known to us: the defaults are ours. It
    is for fine-tuning a trained model: set ``load_from``.

    Args:
        at: One place or several, with equal weight.
        norm: See :func:`mmfeataug.functional.feature_distance`.
        scale_channels: Likewise.
        distortions, weight, task_weight, target, teacher, side, bn, hold, image_range: See
            :class:`Consistency`.
    """

    def __init__(
        self,
        *,
        at: str | Sequence[str] = 'backbone',
        norm: str = 'mse',
        scale_channels: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(at=at, **kwargs)
        if norm not in NORMS:
            raise ValueError(f'norm={norm!r} at {at!r}: choose one of {", ".join(NORMS)}')
        self.norm, self.scale_channels = norm, scale_channels

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """See :func:`mmfeataug.functional.feature_distance`."""
        return feature_distance(x, target, self.norm, self.scale_channels)
