# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The search for signs of a hidden gradient on the first images of a test set."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size

from mmfeataug.utils.progress import progress_bar

from .attacked_batch import Target, rows_of
from .masking import MaskingCheck
from .transfer import Transferred


@dataclass
class Asked:
    """What is asked for.

    Attributes:
        flag_images: How many images, in whole batches; 0: no search.
        transfer: Checkpoint of another model.
        transfer_config: Its config file; None: as of this one.
    """

    flag_images: int
    transfer: str | None = None
    transfer_config: str | None = None


def look_for_masking(
    target: Target, dataloader: Any, settings: Mapping[str, Any], asked: Asked, cfg: Config
) -> dict[str, Any]:
    """Result of a :class:`MaskingCheck`.

    Args:
        target: Place of the model.
        dataloader: Of the test.
        settings: Of :class:`PGD`.
        asked: How much is done.
        cfg: Of the model.
    """
    check = MaskingCheck(settings, transfers=bool(asked.transfer))
    other = None
    if asked.transfer:
        path = asked.transfer_config
        of_other = Config.fromfile(path) if path else cfg
        # An attack of its own: it learns the range of images of its model.
        attack = copy.copy(check.attack)
        other = Transferred(
            target.model, of_other, asked.transfer, attack, target.seed, target.resized
        )
    with progress_bar() as progress, torch.enable_grad():
        task = progress.add_task('signs of a hidden gradient', total=asked.flag_images)
        for data_batch in dataloader:
            given = copy.deepcopy(data_batch) if other is not None else None
            data = target.model.data_preprocessor(data_batch, False)
            for rows in rows_of(data, check.attack.alone):
                inputs = data['inputs'][rows]
                transfer = None if other is None else partial(other, given, inputs, rows)
                with target.open(inputs, data['data_samples'][rows]) as batch:
                    check.add(batch, transfer)
            progress.update(task, completed=check.images)
            if check.images * get_world_size() >= asked.flag_images:
                break
    return check.result()
