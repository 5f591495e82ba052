# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Pictures for people."""

from .curves import draw_curves
from .predictions import draw_predictions, render_prediction

__all__ = ['draw_curves', 'draw_predictions', 'render_prediction']
