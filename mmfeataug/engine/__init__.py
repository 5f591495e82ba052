# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Taps, replays and gradients. Knows modules and tensors, no framework."""

from .augmentation import FeatureAugmentation, Tail, View
from .augmented_loss import AugmentedLoss
from .recording import TapError
from .step import Choice
from .tap import Tap

__all__ = ['AugmentedLoss', 'Choice', 'FeatureAugmentation', 'Tail', 'Tap', 'TapError', 'View']
