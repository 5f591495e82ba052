# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Real images for a classifier that need no download: scikit-learn's handwritten digits."""

import os
from pathlib import Path

import cv2
import numpy as np

TRAIN = 1000
"""Number of the 1797 images to train on; the others are the test part."""


def make_digits(root: str | os.PathLike, *, size: int = 32, seed: int = 0) -> str:
    """Write the digits as folders of grey images, ``root/{train,val}/<digit>/<index>.png``.

    The images are those that scikit-learn carries: the test part of the UCI set "Optical
    Recognition of Handwritten Digits", 8 x 8 pixels of 17 levels. They are scaled up (cubic), the
    levels to 0 to 255. The split keeps the shares of the classes and depends on ``seed`` alone;
    writers are in both parts, because the set does not say who wrote what.

    Args:
        root: Target folder; files of an earlier call are replaced.
        size: Side of the images in pixels.
        seed: Of the split, not negative.

    Returns:
        ``root``, to be used as ``data_root`` of mmpretrain's ``CustomDataset``.

    Raises:
        ImportError: If scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as missing:
        raise ImportError(
            f'make_digits needs scikit-learn ({missing}): pip install mmfeataug[cls]'
        ) from None

    images, labels = load_digits(return_X_y=True)
    train = split(labels, seed)
    for index in range(len(labels)):
        part = 'train' if index in train else 'val'
        folder = Path(root) / part / str(labels[index])
        folder.mkdir(parents=True, exist_ok=True)
        # One of another seed may have put it there.
        other = Path(root) / ('val' if part == 'train' else 'train') / folder.name
        (other / f'{index:04d}.png').unlink(missing_ok=True)
        cv2.imwrite(str(folder / f'{index:04d}.png'), enlarge(images[index].reshape(8, 8), size))
    return str(root)


def split(labels: np.ndarray, seed: int) -> set[int]:
    """Indices of the training part: of every class its share, drawn with ``seed``."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    # Every image's rank within its class, as a share of the class: the lowest of all are taken.
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return set(np.argsort(rank, kind='stable')[:TRAIN].tolist())


def enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """Levels 0 to 16 of an ``(8, 8)`` image as uint8 of shape (size, size)."""
    big = cv2.resize(image * (255 / 16), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.rint(big), 0, 255).astype(np.uint8)
