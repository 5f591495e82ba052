# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What data loaders do not say themselves."""

import math

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from torch.utils.data import DataLoader


def epoch_length(loader: DataLoader) -> int:
    """Iterations of one pass through the data. ``len(loader)`` of an ``InfiniteSampler`` is that of
    a single process, however many share the data.
    """
    sampler = getattr(loader.batch_sampler, 'sampler', loader.sampler)
    if isinstance(sampler, InfiniteSampler):
        return math.ceil(len(loader) / get_world_size())
    return len(loader)
