# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Combined augmentations as a pipeline step."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmfeataug.registry import TRANSFORMS
from mmfeataug.utils.distortions import (
    DISTORTIONS,
    build_distortions,
    combined_distortion,
    refuse_channels,
)
from mmfeataug.utils.pixels import range_of


@TRANSFORMS.register_module()
class CombinedDistortion(BaseTransform):
    """Distort each image by one distortion, drawn from several families.

    FMA (https://arxiv.org/abs/2012.01386) compares itself with this data augmentation.
    :class:`mmfeataug.methods.FMA` distorts its copies itself and does not need this step. Pixels
    stay in place, so boxes, masks and label maps stay valid; draws come from PyTorch's random
    stream, which mmengine seeds in each worker.

    Required Keys: ``img`` (shape (height, width) or (height, width, channels)).

    Modified Keys: ``img`` (same shape and dtype).

    Args:
        distortions: Configs of kornia's intensity augmentations, for images in 0 to 1.
        prob: Probability that an image is distorted. Defaults to 1.
        rgb: Whether images are RGB already; mmcv loads BGR. Defaults to False.
        image_range: Smallest and largest value of the images. Defaults to None: those of their
            type, 0 to 255 in floating point.

    Raises:
        ImportError: If kornia is missing.
        ValueError: For a distortion that moves pixels or is unknown, ``prob`` outside 0 to 1, or
            (with the first image) one that takes no images of so many channels.
    """

    def __init__(
        self,
        distortions: Sequence[dict] = DISTORTIONS,
        prob: float = 1.0,
        rgb: bool = False,
        image_range: tuple[float, float] | None = None,
    ) -> None:
        if isinstance(prob, bool) or not isinstance(prob, (int, float)) or not 0 <= prob <= 1:
            raise ValueError(f'prob={prob!r}: give a probability, 0 to 1')
        self.distortions, self.prob, self.rgb = [dict(d) for d in distortions], prob, rgb
        self.image_range = image_range
        self._built, self._probed = build_distortions(distortions), 0

    def transform(self, results: dict) -> dict:
        """Replace ``results['img']`` by a distorted version."""
        if torch.rand(()) < self.prob:
            image = results['img']
            low, high = range_of(image, self.image_range)
            bands = image if image.ndim == 3 else image[..., None]
            channels = bands.shape[-1]
            if channels != self._probed:
                refuse_channels(self._built, channels)
                self._probed = channels
            order = slice(None, None, None if self.rgb or channels != 3 else -1)
            scaled = (np.asarray(bands[..., order], np.float32) - low) / (high - low)
            (distorted,) = combined_distortion(
                torch.from_numpy(np.ascontiguousarray(scaled)).movedim(-1, 0)[None], self._built
            )
            levels = distorted.movedim(0, -1).numpy()[..., order] * (high - low) + low
            if np.issubdtype(image.dtype, np.integer):
                levels = levels.round()
            results['img'] = np.ascontiguousarray(levels, image.dtype).reshape(image.shape)
        return results

    def __repr__(self) -> str:
        kinds = ', '.join(str(d['type']) for d in self.distortions)
        return f'{type(self).__name__}(distortions=[{kinds}], prob={self.prob}, rgb={self.rgb})'
