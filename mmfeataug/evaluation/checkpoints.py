# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Checkpoints that do not fit their model: mmengine prints it among much else, and goes on."""

import warnings
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner, load_checkpoint
from torch import nn

from mmfeataug.engine import stock_state_dict


def misfit(model: nn.Module, checkpoint: Mapping[str, Any], path: str) -> str:
    """What a checkpoint from ``path`` lacks of a model, in a wrapper or not, in one sentence; empty
    if it has all. What the model has beside the stock model may be missing.

    Raises:
        ValueError: If it has nothing of the model.
    """
    given = {
        key.removeprefix('module.'): getattr(value, 'shape', None)
        for key, value in checkpoint.get('state_dict', checkpoint).items()
    }
    wanted = {
        key.removeprefix('module.'): value.shape
        for key, value in stock_state_dict(model.state_dict()).items()
        if not key.endswith('num_batches_tracked')
    }
    lacking = [key for key in wanted if given.get(key) != wanted[key]]
    if not lacking:
        return ''
    found = (
        f'{path}: {len(lacking)} of {len(wanted)} tensors of the model are not in the checkpoint '
        f'or have other shapes, such as {lacking[0]}: give the checkpoint of this config'
    )
    if len(lacking) == len(wanted):
        raise ValueError(found)
    return f'{found}; these keep their first values, unless the model converts them as it loads'


def load_fitting(model: nn.Module, path: str) -> dict[str, Any]:
    """Load a checkpoint and warn of what it lacks.

    Args:
        model: Gets the weights.
        path: A file, or whatever mmengine reads.

    Returns:
        The checkpoint.

    Raises:
        ValueError: If it has nothing of the model.
    """
    checkpoint = load_checkpoint(model, path, map_location='cpu', logger='silent')
    _say(misfit(model, checkpoint, path))
    return checkpoint


class CheckpointCheck(Hook):
    """Warns of what the checkpoint of a test lacks, which is ``lacks`` then.

    Raises:
        ValueError: If it has nothing of the model.
    """

    lacks = ''

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare it with the model."""
        self.lacks = misfit(runner.model, checkpoint, str(runner._load_from))
        _say(self.lacks)


def _say(lacks: str) -> None:
    if lacks:
        # As ours: tools that let others be silent show it.
        warnings.warn(lacks, stacklevel=2)
