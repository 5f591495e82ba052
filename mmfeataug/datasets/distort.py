# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Combined augmentations as a pipeline step."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmfeataug.registry import TRANSFORMS
from mmfeataug.utils.distortions import DISTORTIONS, build_distortions, combined_distortion


@TRANSFORMS.register_module()
class CombinedDistortion(BaseTransform):
    """Train on distorted images: each with one distortion, drawn from several families.

    The plain data augmentation that FMA (https://arxiv.org/abs/2012.01386) is compared with.
    :class:`mmfeataug.methods.FMA` draws its copies by itself and needs no such step. Pixels stay
    where they are, and with them boxes, masks and label maps; draws come from PyTorch's random
    stream, which mmengine seeds in each worker.

    Required Keys: ``img`` (in [0, 255], shape (height, width, 3)).

    Modified Keys: ``img`` (same shape and dtype).

    Args:
        distortions: Configs of kornia's intensity augmentations, for images in 0 to 1.
        prob: Probability that an image is distorted. Defaults to 1.
        rgb: Whether images are RGB already; mmcv loads BGR. Defaults to False.

    Raises:
        ImportError: If kornia is missing.
        ValueError: For a distortion that moves pixels or is unknown, or ``prob`` outside 0 to 1.
    """

    def __init__(
        self, distortions: Sequence[dict] = DISTORTIONS, prob: float = 1.0, rgb: bool = False
    ) -> None:
        if isinstance(prob, bool) or not isinstance(prob, (int, float)) or not 0 <= prob <= 1:
            raise ValueError(f'prob={prob!r}: give a probability, 0 to 1')
        self.distortions, self.prob, self.rgb = [dict(d) for d in distortions], prob, rgb
        self._built = build_distortions(distortions)

    def transform(self, results: dict) -> dict:
        """Replace ``results['img']`` by a distorted version."""
        if torch.rand(()) < self.prob:
            image = results['img']
            order = slice(None, None, None if self.rgb else -1)
            rgb = np.ascontiguousarray(image[..., order], np.float32) / 255
            (distorted,) = combined_distortion(
                torch.from_numpy(rgb).movedim(-1, 0)[None], self._built
            )
            levels = distorted.movedim(0, -1).numpy()[..., order] * 255
            if np.issubdtype(image.dtype, np.integer):
                levels = levels.round()
            results['img'] = np.ascontiguousarray(levels, image.dtype)
        return results

    def __repr__(self) -> str:
        kinds = ', '.join(str(d['type']) for d in self.distortions)
        return f'{type(self).__name__}(distortions=[{kinds}], prob={self.prob}, rgb={self.rgb})'
