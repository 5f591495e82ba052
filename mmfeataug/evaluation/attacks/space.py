# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Offsets from a clean image or feature, counted in a unit."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Space:
    """Offsets from one clean value, counted in a unit.

    Attributes:
        clean: What the network sees.
        unit: One of an offset, in units of ``clean``; 0 where nothing may move.
        raw: Grey levels of images.
        preprocessed: From these to what the network sees.
    """

    clean: Tensor
    unit: float | Tensor
    raw: Tensor | None = None
    preprocessed: Callable[[Tensor], Tensor] | None = None

    def at(self, offset: Tensor) -> Tensor:
        """What the network is given."""
        if self.raw is None or self.preprocessed is None:
            return self.clean + self.unit * offset
        moved = self.preprocessed((self.raw + offset).clamp(0, 255))
        return torch.where(offset == 0, self.clean, moved)

    def grad(self, gradient: Tensor) -> Tensor:
        """Gradient toward the offset. What is not finite says nothing: boxes without area have
        infinite losses.
        """
        return torch.nan_to_num(gradient * self.unit, 0.0, 0.0, 0.0)

    def confine(self, offset: Tensor) -> Tensor:
        """The nearest offset that leads to an image; padding has none."""
        if self.raw is None:
            return offset
        bounded = torch.minimum(torch.maximum(offset, -self.raw), 255 - self.raw)
        return torch.where(torch.as_tensor(self.unit) > 0, bounded, torch.zeros_like(offset))
