# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Learnt masks for mixing images."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmfeataug.registry import MODELS


@MODELS.register_module()
class MaskGenerator(BaseModule):
    r"""Masks of a mixture, by attention of each sample to the others.

    .. math:: m_n = softmax_p( q_n \sum_{j \neq n} k_j^T / \sqrt{d}) \, v_n

    with 1x1 convolutions :math:`q, k` (to :math:`d`, half of the channels) and :math:`v` (to one);
    resized to the image and put through a softmax over the samples. Source:
    https://arxiv.org/abs/2312.11954.

    Args:
        in_channels: Of the features.
        lam_concat: Whether the convolutions see each sample's share of the mixture as one more
            channel; without, masks do not depend on the shares.
        upsample: ``'bilinear'`` or ``'nearest'``.
        relu: A ReLU behind :math:`q` and :math:`k`, which the authors' generator has.
        norm: Batch norms behind these convolutions, before the ReLU; theirs has them with ResNet-50
            on ImageNet.
        init_cfg: Near zero by default, which makes masks near uniform.
    """

    def __init__(
        self,
        in_channels: int,
        lam_concat: bool = False,
        upsample: str = 'bilinear',
        relu: bool = False,
        norm: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='Normal', layer='Conv2d', std=0.01))
        if upsample not in ('bilinear', 'nearest'):
            raise ValueError(f"upsample={upsample!r}: choose 'bilinear' or 'nearest'")
        self.in_channels, self.lam_concat, self.upsample = in_channels, lam_concat, upsample
        channels = in_channels + lam_concat
        inner = in_channels // 2
        self.query = nn.Conv2d(channels, inner, 1, bias=not norm)
        self.key = nn.Conv2d(channels, inner, 1, bias=not norm)
        self.value = nn.Conv2d(channels, 1, 1)
        self.behind_query, self.behind_key = (
            nn.Sequential(*[nn.BatchNorm2d(inner)] * norm, *[nn.ReLU()] * relu) for _ in range(2)
        )

    def forward(
        self, features: Tensor, index: Tensor, shares: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Masks.

        Args:
            features: ``(B, C, h, w)``.
            index: ``(N, B)``; the samples that each mixture is made of.
            shares: ``(N,)``.
            size: Height and width of the images.

        Returns:
            ``(B, N, H, W)``; they sum to 1 over ``N``.

        Raises:
            ValueError: If the features are of other shape.
        """
        if features.dim() != 4 or features.shape[1] != self.in_channels:
            raise ValueError(
                f'features of shape {tuple(features.shape)}, but channels={self.in_channels}: '
                'tools/analysis_tools/list_taps.py CONFIG prints the shapes of all places; choose '
                'one of four dimensions and give its channels'
            )
        parts = []
        for order, share in zip(index, shares, strict=True):
            part = features[order]
            if self.lam_concat:
                plane = share.to(part).expand(len(part), 1, *part.shape[2:])
                part = torch.cat([part, plane], 1)
            parts.append(part)
        keys = [self.behind_key(self.key(part)) for part in parts]
        together = torch.stack(keys).sum(0)
        masks = [
            F.scaled_dot_product_attention(
                _positions(self.behind_query(self.query(part))),
                _positions(together - key),
                _positions(self.value(part)),
            )
            for part, key in zip(parts, keys, strict=True)
        ]
        coarse = torch.cat(masks, -1).mT.unflatten(2, features.shape[2:])
        corners = {} if self.upsample == 'nearest' else dict(align_corners=False)
        return F.interpolate(coarse, size, mode=self.upsample, **corners).softmax(1)


def _positions(x: Tensor) -> Tensor:
    return x.flatten(2).mT
