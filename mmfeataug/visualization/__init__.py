# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Pictures for people."""

from .curves import draw_curves
from .features import draw_change, draw_copies, draw_rows, record
from .mixing import draw_mixing, mixed_map, record_mixtures
from .predictions import draw_predictions, render_prediction
from .surface import draw_strengths, draw_surface, loss_surface

__all__ = [
    'draw_change',
    'draw_copies',
    'draw_curves',
    'draw_mixing',
    'draw_predictions',
    'draw_rows',
    'draw_strengths',
    'draw_surface',
    'loss_surface',
    'mixed_map',
    'record',
    'record_mixtures',
    'render_prediction',
]
