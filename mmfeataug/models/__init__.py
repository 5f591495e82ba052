# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Wrappers that declare augmentations, and losses and modules that methods use."""

from .averaged import CosineEMA
from .losses import MarginSoftmaxLoss
from .mask_generator import MaskGenerator
from .necks import UnitPooling
from .plain_decoder import PlainDeepLabV3PlusHead
from .wrappers import (
    AugmentedBackbone,
    AugmentedModel,
    AugmentedNeck,
    collect,
    declare,
    declares,
    layers,
)

__all__ = [
    'AugmentedBackbone',
    'AugmentedModel',
    'AugmentedNeck',
    'CosineEMA',
    'MarginSoftmaxLoss',
    'MaskGenerator',
    'PlainDeepLabV3PlusHead',
    'UnitPooling',
    'collect',
    'declare',
    'declares',
    'layers',
]
