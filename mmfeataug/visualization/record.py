# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What augmentations do in a training pass, noted for pictures."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from mmfeataug.engine import Augmentation
from mmfeataug.utils.pixels import PixelScale, turns_to_rgb

Show = Callable[[Tensor], np.ndarray]
"""Makes pictures, RGB in 0 to 255 ``(N, H, W, 3)``, of preprocessed images ``(N, 3, H, W)``."""


@dataclass
class Change:
    """A value at a tap before and after an augmentation.

    Attributes:
        clean, view: ``(N, C, H, W)``, ``(N, L, C)`` or ``(R, C)``, fp32, in main memory.
        images: The preprocessed copies that a method compares the batch with.
        index: Number of the view or copy.
        level: Number of the value, where a view has several (FPN levels).
        count: Length of the first dimension before it was cut.
    """

    clean: Tensor
    view: Tensor
    images: Tensor | None = None
    index: int = 0
    level: int = 0
    count: int = 0

    @property
    def is_map(self) -> bool:
        """Whether it has positions."""
        return self.clean.dim() > 2

    def sample(self, i: int) -> 'Change':
        """Of one sample alone."""
        part = slice(i, i + 1)
        images = None if self.images is None else self.images[part]
        return replace(self, clean=self.clean[part], view=self.view[part], images=images)


def record(
    augmentation: Augmentation, *, samples: int | None = None, always: bool = True
) -> list[Change]:
    """Record the changes of an augmentation in later passes, until :func:`stop_recording`.

    Training is not changed by that. Values that the augmentation leaves as they are, and values
    that are not finite, are not noted. Of a layer that is called several times in a pass, the first
    call is.

    Args:
        augmentation: Attached to a model, or to be attached.
        samples: Keep so many samples of a map, and of images; None is all. Rows ``(R, C)`` have no
            samples and are kept.
        always: Let it act in every pass whatever its ``prob``, from here on.

    Returns:
        A list that fills. Memory: for each view, the kept part of the feature twice.
    """
    seen: list[Change] = []
    if always and hasattr(augmentation, 'prob'):
        setattr(augmentation, 'prob', 1.0)  # noqa: B010

    def kept(value: Tensor) -> Tensor:
        part = value if value.dim() < 3 else value[:samples]
        # A copy: an in-place operation behind the tap would overwrite what is kept.
        return part.detach().to('cpu', torch.float32, copy=True)

    def note(
        clean: Sequence[Tensor],
        changed: Sequence[Tensor],
        images: Tensor | None = None,
        index: int = 0,
    ) -> None:
        if any(change.index == index for change in seen):
            return
        copies = None if images is None else kept(images)
        for level, (before, after) in enumerate(zip(clean, changed, strict=True)):
            if after is before:
                continue
            pair = kept(before), kept(after)
            if all(value.isfinite().all() for value in pair) and not torch.equal(*pair):
                seen.append(Change(*pair, copies, index, level, len(before)))

    augmentation.observer = note
    return seen


def stop_recording(augmentation: Augmentation) -> None:
    """Undo :func:`record`, but for ``always``."""
    augmentation.observer = None


def deepest(changes: Iterable[Change]) -> list[Change]:
    """The last feature of each copy that has positions, or else the last one."""
    return list({c.index: c for c in sorted(changes, key=lambda c: c.is_map)}.values())


def levels(changes: Iterable[Change], change: Change) -> int:
    """Number of changed values of the same view or copy."""
    return sum(other.index == change.index for other in changes)


def shown(model: nn.Module, transforms: Iterable[str]) -> Show:
    """How images that a model is trained on are made visible.

    Args:
        model: With a ``data_preprocessor`` of OpenMMLab.
        transforms: Types of the training pipeline's steps. Images that one of them loads are BGR,
            as mmcv loads them, until the data preprocessor turns them.
    """
    is_rgb = turns_to_rgb(model) or not any('LoadImage' in name for name in transforms)
    scale = PixelScale(model)

    def show(images: Tensor) -> np.ndarray:
        values = images.detach().float()
        try:
            raw = scale.raw(values)
        except ValueError:
            # Of an unknown range: what there is, from black to white.
            low, high = values.min(), values.max()
            raw = (values - low) * (255 / (high - low).clamp(min=1e-12))
        bands: np.ndarray = raw.movedim(1, -1).numpy(force=True)
        if bands.shape[-1] < 3:
            return bands[..., :1].repeat(3, axis=-1)
        # Of many bands the first three, which are the colours where a file has some.
        bands = bands[..., :3]
        return bands if is_rgb else bands[..., ::-1].copy()

    return show
