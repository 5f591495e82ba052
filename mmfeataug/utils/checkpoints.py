# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Lets PyTorch read mmengine's own checkpoints without trusting any file with code.

Since 2.6 ``torch.load`` reads weights only. Checkpoints of mmengine hold log buffers too, which the
original packages (mmengine 0.10.7) do not declare: ``resume`` and ``test`` fail there. The
continued packages do it themselves.
"""

from importlib import metadata
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch


def declare_log_buffers() -> bool:
    """Tell PyTorch which classes of mmengine and NumPy are data; does nothing where that is not
    needed.

    Returns:
        Whether it was needed.
    """
    if not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
        return False
    try:
        metadata.version('onedl-mmengine')
    except metadata.PackageNotFoundError:
        torch.serialization.add_safe_globals(safe_globals())
        return True
    return False


def load_weights(path: str) -> dict[str, torch.Tensor]:
    """The ``state_dict`` of a checkpoint: a file or whatever mmengine reads."""
    from mmengine.runner.checkpoint import CheckpointLoader

    declare_log_buffers()
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    return checkpoint.get('state_dict', checkpoint)


def safe_globals() -> list[Any]:
    """What a checkpoint of mmengine names beside tensors: classes of data, and the methods of a log
    buffer.
    """
    from mmengine.logging import HistoryBuffer

    def method_of_buffer(owner: Any, name: str) -> Any:
        # How pickle writes HistoryBuffer.mean; the real getattr would reach everything.
        if owner is not HistoryBuffer or name.startswith('_'):
            raise UnpicklingError(f'it asks for {name!r} of {owner!r}, which is no log buffer')
        return getattr(owner, name)

    core = np._core if hasattr(np, '_core') else np.core
    types = (np.float64, np.float32, np.int64, np.int32, np.uint32, np.bool_)
    return [
        HistoryBuffer,
        (method_of_buffer, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        core.multiarray._reconstruct,
        core.multiarray.scalar,
        *(type(np.dtype(t)) for t in types),
    ]
