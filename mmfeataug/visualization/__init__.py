# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Pictures of features, mixtures, predictions and loss surfaces."""

from .features import draw, draw_change, draw_copies, draw_rows
from .mixing import draw_mixing, mixed_map, record_mixtures
from .panels import overlay, save, to_array
from .predictions import Painter, draw_predictions, render_predictions, spread_indices
from .record import Change, deepest, levels, record, shown, stop_recording
from .surface import draw_surface, loss_surface

__all__ = [
    'Change',
    'Painter',
    'deepest',
    'draw',
    'draw_change',
    'draw_copies',
    'draw_mixing',
    'draw_predictions',
    'draw_rows',
    'draw_surface',
    'levels',
    'loss_surface',
    'mixed_map',
    'overlay',
    'record',
    'record_mixtures',
    'render_predictions',
    'save',
    'shown',
    'spread_indices',
    'stop_recording',
    'to_array',
]
