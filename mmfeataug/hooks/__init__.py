# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Hooks for mmengine's Runner."""

from mmfeataug._checkpoints import declare_log_buffers

from .auxiliary_bn_hook import AuxiliaryBNHook
from .feature_aug_hook import FeatureAugHook
from .iteration_seed_hook import IterationSeedHook

declare_log_buffers()

__all__ = ['AuxiliaryBNHook', 'FeatureAugHook', 'IterationSeedHook']
