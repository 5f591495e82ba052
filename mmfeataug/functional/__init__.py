# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Tensor maths of the methods: no state, no framework."""

from .attack import interpolate, project_linf, signed_step
from .statistics import channel_dim, mean_std, reinject_statistics, statistic_dims

__all__ = [
    'channel_dim',
    'interpolate',
    'mean_std',
    'project_linf',
    'reinject_statistics',
    'signed_step',
    'statistic_dims',
]
