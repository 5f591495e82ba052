# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What attacks of an evaluation share: the images of a batch, and their kind."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmfeataug.engine import FeatureAugmentation, Tail, View
from mmfeataug.functional import uniform_in_ball
from mmfeataug.utils.images import image_key, seed_from

from .geometry import Geometry, Region, region_of


@dataclass
class Images:
    """The images of a batch, for draws and borders that do not depend on the batch.

    Attributes:
        names: One an image: what a draw is seeded by beside ``seed``.
        regions: Where each lies; the rest is padding.
        seed: Of the evaluation.
    """

    names: list[str]
    regions: list[Region]
    seed: int

    @classmethod
    def of(cls, samples: Sequence[Any], seed: int, geometry: Geometry | None = None) -> 'Images':
        """Of data samples, each of which says where it comes from.

        Raises:
            ValueError: If a sample says neither its path nor its number.
        """
        names, regions = [], []
        for sample in samples:
            # Without the folder: the same images elsewhere get the same draws.
            names.append(os.path.basename(image_key(sample.metainfo)))
            region = None if geometry is None else geometry.region(sample)
            regions.append(region_of(sample) if region is None else region)
        return cls(names, regions, seed)

    def key(self, names: Sequence[str]) -> int:
        """Seed in [0, 2**32)."""
        return seed_from(self.seed, *names)

    def draw(self, like: Tensor, norm: str, pixels: bool, start: int = 0) -> Tensor:
        """Uniform draws from unit balls, one per sample of ``like``.

        Args:
            like: ``(N, ...)``. With another number of rows than images there is one draw for all.
            norm: Of the balls.
            pixels: Whether ``like`` are the images, whose padding gets 0.
            start: Which of several draws.
        """
        other = [f'start {start}'] if start else []
        parts: list[tuple[Any, list[str]]] = [(slice(None), self.names)]
        if len(like) == len(self.names):
            parts = [(i, [name]) for i, name in enumerate(self.names)]
        out = torch.zeros_like(like)
        for region, (part, names) in zip(self.regions, parts, strict=False):
            target = out[part]
            if pixels:
                top, left, bottom, right = region
                target = target[..., top:bottom, left:right]
            generator = torch.Generator().manual_seed(self.key([*names, *other]))
            # Of what it is like, its shape, type and device count.
            target.copy_(uniform_in_ball(target, norm, generator))
        return out

    def inside(self, like: Tensor) -> Tensor:
        """1 at pixels, 0 at padding; ``(N, 1, H, W)``."""
        mask = torch.zeros_like(like[:, :1])
        for i, (top, left, bottom, right) in enumerate(self.regions):
            mask[i, :, top:bottom, left:right] = 1
        return mask


class Attack(FeatureAugmentation):
    """Base of attacks for evaluation: one view, batch norms in evaluation mode.

    Args:
        at, side: See :class:`FeatureAugmentation`.

    Attributes:
        images: Of the current batch; set before :meth:`views`.
        against: Words in the names of the terms of the loss that it attacks; empty: all.
        alone: Whether it looks at the loss of each image, and so attacks one at a time.
    """

    images: Images
    against: tuple[str, ...] = ()
    alone = False

    def __init__(self, *, at: str, side: str = 'output') -> None:
        super().__init__(at=at, side=side, bn='eval')

    @property
    def active(self) -> bool:
        """An attack of strength 0 is not made at all."""
        return True


class Clean(Attack):
    """No attack: what others are compared to."""

    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """The clean features; see :meth:`FeatureAugmentation.views`."""
        yield View(features, 1.0)
