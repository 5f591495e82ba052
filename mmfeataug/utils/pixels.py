# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Images before and after the data preprocessor."""

from typing import Any

from torch import Tensor, nn


class PixelScale:
    """What a model's data preprocessor does to grey levels of 0 to 255: ``(raw - mean) / std``.

    Args:
        model: With a ``data_preprocessor`` of OpenMMLab; without one, images are raw.
    """

    def __init__(self, model: nn.Module) -> None:
        preprocessor = getattr(model, 'data_preprocessor', None)
        self._mean: Any = getattr(preprocessor, 'mean', None)
        self._std: Any = getattr(preprocessor, 'std', None)

    def raw(self, images: Tensor) -> Tensor:
        """Grey levels of preprocessed images ``(N, 3, H, W)``."""
        if self._std is None:
            return images
        return images * self._std.to(images) + self._mean.to(images)

    def preprocessed(self, raw: Tensor) -> Tensor:
        """The inverse of :meth:`raw`."""
        if self._std is None:
            return raw
        return (raw - self._mean.to(raw)) / self._std.to(raw)

    def level(self, images: Tensor) -> float | Tensor:
        """One grey level, in units of preprocessed images; broadcasts to them."""
        return 1.0 if self._std is None else 1 / self._std.to(images)
