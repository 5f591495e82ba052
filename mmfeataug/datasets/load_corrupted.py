# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corrupted images from disk, instead of ``Corrupt``."""

import numpy as np
from mmcv.transforms import BaseTransform

from mmfeataug.registry import TRANSFORMS

from .copies import CorruptedCopies, decode


@TRANSFORMS.register_module()
class LoadCorrupted(BaseTransform):
    """Replace the clean image by its corrupted copy from disk: the same pixels as
    ``Corrupt`` computes, but faster.

    Put it in the place of ``Corrupt``, after the loading of the clean image. The clean image is
    used to check that the copy was made from it.

    Required Keys: ``img`` and ``img_path``, ``img_id`` or ``sample_idx``.

    Modified Keys: ``img`` (same shape and dtype).

    Args:
        folder: What ``tools/dataset_converters/make_corrupted.py`` wrote.
        corruption, severity: As of ``Corrupt``.
        rgb: Whether images are RGB. Defaults to False.

    Raises:
        ValueError: If the folder lacks the condition, is of another version of the library, or
            was made from another image or another loading of it; the message has the remedy.
        FileNotFoundError: If a copy is missing.
    """

    def __init__(self, folder: str, corruption: str, severity: int, rgb: bool = False) -> None:
        self.copies = CorruptedCopies.read(folder)
        self.copies.refuse_missing(corruption, severity)
        self.corruption, self.severity, self.rgb = corruption, severity, rgb

    def transform(self, results: dict) -> dict:
        """Replace ``results['img']`` by its corrupted copy."""
        image, copies = results['img'], self.copies
        name = copies.name(results)
        copies.check(name, image)
        path = copies.path(name, self.corruption, self.severity, image.dtype)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(
                f'{path} is missing: {copies.remedy(self.corruption, self.severity)}'
            ) from None
        copy = decode(content, path)
        if copy.dtype != image.dtype or copy.size != image.size:
            raise ValueError(
                f'{path} is {copy.dtype} of shape {copy.shape}, the image {image.dtype} of shape '
                f'{image.shape}: delete it and make it again'
            )
        copy = copy.reshape(image.shape)
        # Files show colours as they are.
        results['img'] = np.ascontiguousarray(copy[..., ::-1] if self.rgb else copy)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(folder={str(self.copies.folder)!r}, '
            f'corruption={self.corruption!r}, severity={self.severity})'
        )
