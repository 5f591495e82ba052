# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Model parts that declare augmentations, and losses that methods ask for."""

from .losses import MarginSoftmaxLoss
from .wrappers import AugmentedBackbone, AugmentedModel, AugmentedNeck

__all__ = ['AugmentedBackbone', 'AugmentedModel', 'AugmentedNeck', 'MarginSoftmaxLoss']
