# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Tensor functions of the methods, without state; they need PyTorch only."""

from .adaptive import ascend_adaptively
from .attack import (
    ascend,
    interpolate,
    l2_step,
    project_l2,
    project_linf,
    signed_step,
    uniform_in_ball,
)
from .consistency import NORMS, feature_distance, prediction_divergence
from .mixing import mean_inside, mix, weighted_cosine
from .pixels import cospgd_weights, segpgd_weights
from .semantic import labels_from_gradient, semantic_direction
from .statistics import (
    AXES,
    channel_dim,
    deviation,
    mean_std,
    perturb_statistics,
    reinject_statistics,
    replace_statistics,
    statistic_dims,
    swap_statistics,
    too_few,
)

__all__ = [
    'AXES',
    'NORMS',
    'ascend',
    'ascend_adaptively',
    'channel_dim',
    'cospgd_weights',
    'deviation',
    'feature_distance',
    'interpolate',
    'l2_step',
    'labels_from_gradient',
    'mean_inside',
    'mean_std',
    'mix',
    'perturb_statistics',
    'prediction_divergence',
    'project_l2',
    'project_linf',
    'reinject_statistics',
    'replace_statistics',
    'segpgd_weights',
    'semantic_direction',
    'signed_step',
    'statistic_dims',
    'swap_statistics',
    'too_few',
    'uniform_in_ball',
    'weighted_cosine',
]
