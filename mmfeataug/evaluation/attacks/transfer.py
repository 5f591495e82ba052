# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Attacks that are made on one model and shown to another."""

import copy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from torch import Tensor

from mmfeataug.utils.pixels import PixelScale, turns_to_rgb

from .attacked_batch import Target
from .geometry import Geometry
from .pgd import PGD


class Transferred:
    """Attacked images of another model, as this one sees them.

    Args:
        model: That the images are shown to.
        cfg: Config of the other model; its data preprocessor has to leave images of the same size.
        checkpoint: Its weights.
        attack: Made on it.
        seed: Of random starts.
        geometry: Of the data set.
    """

    def __init__(
        self,
        model: Any,
        cfg: Config,
        checkpoint: str,
        attack: PGD,
        seed: int,
        geometry: Geometry | None,
    ) -> None:
        model_cfg = copy.deepcopy(cfg.model)
        if cfg.get('data_preprocessor'):
            # Where configs of mmpretrain have it.
            model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
        other: Any = MODELS.build(model_cfg)
        try:
            load_checkpoint(other, checkpoint, map_location='cpu', strict=True)
        except RuntimeError as error:
            raise ValueError(
                f'transfer={checkpoint!r} does not fit its config: give that of its training '
                f'(--transfer-config). {error}'
            ) from None
        self._other = other.to(next(model.parameters()).device).eval()
        self._attack = attack
        self._target = Target(self._other, 'inputs', 'output', seed, geometry)
        self._mine = PixelScale(model, attack.image_range)
        self._theirs = PixelScale(self._other, attack.image_range)
        self._turned = turns_to_rgb(model) != turns_to_rgb(self._other)

    def __call__(self, data_batch: Any, own: Tensor, rows: slice) -> list[Tensor]:
        """Attacked images.

        Args:
            data_batch: As the data loader gives it.
            own: Images as this model sees them.
            rows: Which of the batch.

        Raises:
            ValueError: If the two models see images of other sizes.
        """
        data = self._other.data_preprocessor(copy.deepcopy(data_batch), False)
        inputs, samples = data['inputs'][rows], data['data_samples'][rows]
        if inputs.shape != own.shape:
            raise ValueError(
                f'transfer: that model sees images of shape {tuple(inputs.shape)}, this one '
                f'{tuple(own.shape)}: take one whose data preprocessor pads alike'
            )
        with self._target.open(inputs, samples) as batch:
            (moved,) = batch.attack(self._attack)
        # These learn the range of images from clean ones.
        self._mine.level(own)
        self._theirs.level(inputs)
        raw, same = self._theirs.raw(moved), moved == inputs
        if self._turned and raw.shape[1] == 3:
            raw, same = raw.flip(1), same.flip(1)
        # Where nothing was changed, nothing is rounded.
        return [torch.where(same, own, self._mine.preprocessed(raw))]
