# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corrupted images for every task, demo data sets, and digits."""

from .cache import library_version
from .conditions import behind_loading, corrupt_images
from .corrupt import Corrupt, corrupt_image
from .demo import make_demo_data
from .digits import make_digits
from .random_batch import random_batch

__all__ = [
    'Corrupt',
    'behind_loading',
    'corrupt_image',
    'corrupt_images',
    'library_version',
    'make_demo_data',
    'make_digits',
    'random_batch',
]
