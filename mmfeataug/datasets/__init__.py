# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corrupted images for every task, demo data sets, and digits."""

from .conditions import behind_loading, corrupt_images
from .copies import CorruptedCopies, library_version
from .corrupt import Corrupt, corrupt_image
from .demo import make_demo_data
from .digits import make_digits
from .distort import CombinedDistortion
from .load_corrupted import LoadCorrupted
from .make_corrupted import make_corrupted
from .random_batch import random_batch

__all__ = [
    'CombinedDistortion',
    'Corrupt',
    'CorruptedCopies',
    'LoadCorrupted',
    'behind_loading',
    'corrupt_image',
    'corrupt_images',
    'library_version',
    'make_corrupted',
    'make_demo_data',
    'make_digits',
    'random_batch',
]
