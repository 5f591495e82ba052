# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Data for trying and judging: corrupted images for every task, drawn demo sets, digits."""

from .corrupt import Corrupt, corrupt_image
from .demo import make_demo_data
from .digits import make_digits
from .distort import CombinedDistortion
from .random_batch import random_batch

__all__ = [
    'CombinedDistortion',
    'Corrupt',
    'corrupt_image',
    'make_demo_data',
    'make_digits',
    'random_batch',
]
