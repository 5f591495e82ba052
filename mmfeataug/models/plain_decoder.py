# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""DeepLabV3+ with ordinary convolutions in its decoder."""

from typing import Any

from torch import nn

from mmfeataug.registry import MODELS


@MODELS.register_module()
class PlainDeepLabV3PlusHead:
    """Build mmseg's ``DepthwiseSeparableASPPHead`` with convolutions that are not separable.

    Building one returns that head with other parts under the same names: 3x3 convolutions in
    ``aspp_modules``, a 1x1 convolution and the dropout in ``bottleneck``, one 3x3 convolution in
    ``sep_bottleneck``. With 256 channels behind a ResNet-50 and 21 classes it has 16.25 million
    parameters, mmseg's 5.81.

    Args:
        dropout_ratio: Of single values behind the ASPP, not of channels before the classifier.
        **head: See mmseg's head.

    Source: the segmentation part of the release of https://arxiv.org/abs/2103.12171.
    """

    def __new__(cls, *, dropout_ratio: float = 0.1, **head: Any) -> nn.Module:  # type: ignore[misc]
        """See the class."""
        from mmcv.cnn import ConvModule

        decoder = {k: head.pop(k) for k in ('c1_in_channels', 'c1_channels')}
        head['dropout_ratio'] = 0.0
        plain = MODELS.build(dict(type='mmseg.ASPPHead', **head))
        built = MODELS.build(dict(type='mmseg.DepthwiseSeparableASPPHead', **head, **decoder))
        layer = dict(conv_cfg=built.conv_cfg, norm_cfg=built.norm_cfg, act_cfg=built.act_cfg)
        channels = built.channels
        built.aspp_modules = plain.aspp_modules
        built.bottleneck = nn.Sequential(
            ConvModule((len(built.dilations) + 1) * channels, channels, 1, **layer),
            nn.Dropout(dropout_ratio),
        )
        built.sep_bottleneck = ConvModule(
            channels + decoder['c1_channels'], channels, 3, padding=1, **layer
        )
        return built
