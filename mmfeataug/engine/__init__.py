# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Taps, replays and gradients. Knows modules and tensors, no framework."""

from .augmentation import Augmentation, BatchAugmentation, FeatureAugmentation, Tail, View
from .augmented_loss import AugmentedLoss
from .auxiliary import PARTS, AuxiliaryNorms, has_auxiliary, norms_behind, stock_state_dict
from .copies import Network
from .guards import average_over_processes, seed_global
from .recording import TapError
from .tap import Tap, find_module, patched
from .terms import Choice
from .transform import FeatureTransform

__all__ = [
    'PARTS',
    'Augmentation',
    'AugmentedLoss',
    'AuxiliaryNorms',
    'BatchAugmentation',
    'Choice',
    'FeatureAugmentation',
    'FeatureTransform',
    'Network',
    'Tail',
    'Tap',
    'TapError',
    'View',
    'average_over_processes',
    'find_module',
    'has_auxiliary',
    'norms_behind',
    'patched',
    'seed_global',
    'stock_state_dict',
]
