# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Data for trying and judging: corrupted images for every task, and drawn demo sets."""

from .corrupt import COMMON_CORRUPTIONS, EXTRA_CORRUPTIONS, Corrupt
from .demo import make_demo_data

__all__ = ['COMMON_CORRUPTIONS', 'EXTRA_CORRUPTIONS', 'Corrupt', 'make_demo_data']
