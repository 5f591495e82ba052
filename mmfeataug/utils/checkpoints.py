# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Reading checkpoints."""

import torch


def load_weights(path: str) -> dict[str, torch.Tensor]:
    """The ``state_dict`` of a checkpoint: a file or whatever mmengine reads."""
    from mmengine.runner.checkpoint import CheckpointLoader

    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    return checkpoint.get('state_dict', checkpoint)
