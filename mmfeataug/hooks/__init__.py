# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Hooks for mmengine's Runner."""

from .feature_aug_hook import FeatureAugHook

__all__ = ['FeatureAugHook']
