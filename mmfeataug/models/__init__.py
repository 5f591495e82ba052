# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Model parts that declare augmentations."""

from .wrappers import AugmentedBackbone, AugmentedNeck

__all__ = ['AugmentedBackbone', 'AugmentedNeck']
