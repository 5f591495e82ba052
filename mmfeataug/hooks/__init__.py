# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Hooks for mmengine's Runner."""

from .auxiliary_bn_hook import AuxiliaryBNHook
from .budget import Budget
from .check_hook import CheckHook
from .cost_hook import CostHook
from .feature_aug_hook import FeatureAugHook
from .findings import Finding, config_lines, errors
from .iteration_seed_hook import IterationSeedHook
from .schedule import Schedule
from .visualization_hook import FeatureAugVisualizationHook

__all__ = [
    'AuxiliaryBNHook',
    'Budget',
    'CheckHook',
    'CostHook',
    'FeatureAugHook',
    'FeatureAugVisualizationHook',
    'Finding',
    'IterationSeedHook',
    'Schedule',
    'config_lines',
    'errors',
]
