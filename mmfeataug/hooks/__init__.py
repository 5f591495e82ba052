# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Hooks for mmengine's Runner."""

from .auxiliary_bn_hook import AuxiliaryBNHook
from .budget import Budget
from .cost_hook import CostHook
from .feature_aug_hook import FeatureAugHook
from .iteration_seed_hook import IterationSeedHook
from .visualization_hook import FeatureAugVisualizationHook

__all__ = [
    'AuxiliaryBNHook',
    'Budget',
    'CostHook',
    'FeatureAugHook',
    'FeatureAugVisualizationHook',
    'IterationSeedHook',
]
