# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corrupted images in files, without loss."""

import contextlib
import io
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np

LIBRARIES = ('imagecorruptions-imaug', 'imagecorruptions', 'kornia')
BELOW = (
    'mmfeataug',
    'numpy',
    'opencv-python',
    'opencv-python-headless',
    'pillow',
    'scikit-image',
    'scipy',
    'torch',
)
"""What those compute with, and what calls them."""


def library_version() -> dict[str, str]:
    """Installed packages that corrupt images, with their versions."""
    return _versions(LIBRARIES)


def all_versions() -> dict[str, str]:
    """Of all that the pixels of a corrupted image may depend on."""
    return _versions((*LIBRARIES, *BELOW))


def _versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def suffix_of(dtype: np.dtype) -> str:
    """``.png`` for images of 8 and of 16 bits, ``.npy`` for others."""
    return '.png' if dtype in (np.uint8, np.uint16) else '.npy'


def encode(image: np.ndarray, rgb: bool) -> bytes:
    """An image as the content of a file that shows its colours as they are.

    Args:
        image: Of shape (height, width, 3), or grey of shape (height, width[, 1]).
        rgb: Whether colours are RGB; else they are BGR.
    """
    if suffix_of(image.dtype) == '.png':
        # The quickest level: noise does not compress.
        level = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        return cv2.imencode('.png', _turned(image, rgb), level)[1].tobytes()
    file = io.BytesIO()
    np.save(file, image, allow_pickle=False)
    return file.getvalue()


def read(path: Path, like: np.ndarray, rgb: bool) -> np.ndarray | None:
    """What :func:`encode` was given; None if there is no such file, or it is damaged.

    Args:
        path: Of the file.
        like: Has its type and shape.
        rgb: As it was written.
    """
    try:
        content = path.read_bytes()
        if path.suffix == '.npy':
            found = np.load(io.BytesIO(content), allow_pickle=False)
        else:
            found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            found = None if found is None else _turned(found, rgb)
    except Exception:
        # Damaged headers raise errors of many kinds.
        return None
    if found is None or (found.dtype, found.size) != (like.dtype, like.size):
        return None
    return found.reshape(like.shape)


def _turned(image: np.ndarray, rgb: bool) -> np.ndarray:
    """BGR of RGB and the other way round, if it is."""
    return np.ascontiguousarray(image[..., ::-1] if rgb and image.ndim == 3 else image)
