# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Combined augmentations: one distortion per image of the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmfeataug.engine import FeatureTransform
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.distortions import (
    DISTORTIONS,
    build_distortions,
    combined_distortion,
    refuse_channels,
)
from mmfeataug.utils.pixels import PixelScale, channels_of
from mmfeataug.utils.settings import in_range


@AUGMENTATIONS.register_module()
class DistortImages(FeatureTransform):
    """Train on distorted images: each with one distortion, drawn from several families.

    It acts on the preprocessed batch, including padding, on the model's device. Views of other
    methods are then views of the distorted images. FMA (https://arxiv.org/abs/2012.01386) compares
    itself with this data augmentation.

    Processes that share a random seed draw alike; ``randomness=dict(diff_rank_seed=True)`` gives
    each process its own draws.

    Args:
        at: ``'inputs'``, the images.
        distortions: Configs of kornia's intensity augmentations, for images in 0 to 1.
        prob: Probability that an image is distorted. It saves no time: others are put back.
        image_range: See :class:`mmfeataug.utils.pixels.PixelScale`.
        side, as_view, weight, bn, learn: See :class:`FeatureTransform`.

    Raises:
        ImportError: If kornia is missing.
        ValueError: If ``at`` is not the images; for a distortion that moves pixels or does not
            support the number of channels.
    """

    acts_by_image = True
    """``prob`` is of each image, and not of the batch."""

    def __init__(
        self,
        *,
        at: str = 'inputs',
        distortions: Sequence[dict] = DISTORTIONS,
        prob: float = 1.0,
        image_range: tuple[float, float] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(at=at, **kwargs)
        if at != 'inputs':
            raise ValueError(f"at={at!r}: DistortImages distorts images, give at='inputs'")
        self.prob, self.image_range = in_range('prob', prob, at), image_range
        self._distortions = build_distortions(distortions)
        self._pixels: PixelScale | None = None

    @property
    def active(self) -> bool:
        """False if no image is ever distorted."""
        return super().active and self.prob > 0

    def bind(self, model: nn.Module) -> None:
        """Learn the scale of pixels, and try the distortions."""
        self._pixels = PixelScale(model, self.image_range)
        refuse_channels(self._distortions, channels_of(model))

    def transform(self, feature: Tensor) -> Tensor:
        """Distorted images, without gradient.

        Args:
            feature: Preprocessed images, ``(N, C, H, W)``.
        """
        assert self._pixels is not None
        raw = (self._pixels.raw(feature) / 255).clamp(0, 1)
        distorted = self._pixels.preprocessed(combined_distortion(raw, self._distortions) * 255)
        drawn = torch.rand(len(feature)).to(feature.device) < self.prob
        return torch.where(drawn.view(-1, 1, 1, 1), distorted, feature)
