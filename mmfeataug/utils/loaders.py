# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What data loaders do not say themselves."""

import math
from typing import Any

from torch.utils.data import DataLoader


def epoch_length(loader: DataLoader) -> int:
    """Iterations of one pass through the data. ``len(loader)`` of endless samplers
    (``InfiniteSampler``, mmdet's ``MultiSourceSampler``) is that of a single process, however many
    share the data.
    """
    sampler: Any = getattr(loader.batch_sampler, 'sampler', loader.batch_sampler or loader.sampler)
    processes = getattr(sampler, 'world_size', 1)
    if processes > 1 and len(sampler) == len(sampler.dataset):
        return math.ceil(len(loader) / processes)
    return len(loader)
