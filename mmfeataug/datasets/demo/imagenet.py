# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""ImageNet: one folder per class, one picture per object."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from .render import Picture
from .scenes import SPLITS, THINGS

FOLDER = 'imagenet'
SIZE = 64
MARGIN = 1.25
"""Side of the square that is cut out, in longer sides of the thing's box."""


def write(root: Path, pictures: Iterable[Picture]) -> None:
    """Write ``root/{train,val}/<class>/<scene>_<thing>.png``, for mmpretrain's ``CustomDataset``.

    Every thing of a scene is cut out with a margin, and what lies beside the scene continues its
    border. Several things may be on one picture; the one in the middle is meant.

    Args:
        root: The ``imagenet`` folder.
        pictures: Painted scenes of both splits.
    """
    for split in SPLITS:
        for name in THINGS:
            (root / split / name).mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        folder = root / picture.scene.split
        for index, thing in enumerate(picture.things()):
            stem = f'{picture.scene.number:06d}_{index}'
            pixels = cut_out(picture.image, thing.box)
            cv2.imwrite(str(folder / thing.name / f'{stem}.png'), pixels[..., ::-1])


def cut_out(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """A square around a box, resized.

    Args:
        image: uint8 of shape (height, width, 3).
        box: ``(x0, y0, x1, y1)`` in pixels.

    Returns:
        uint8 of shape (SIZE, SIZE, 3).
    """
    x0, y0, x1, y1 = box
    side = round(MARGIN * max(x1 - x0, y1 - y0))
    left, top = (x0 + x1 - side) // 2, (y0 + y1 - side) // 2
    rows = np.arange(top, top + side).clip(0, image.shape[0] - 1)
    columns = np.arange(left, left + side).clip(0, image.shape[1] - 1)
    square = image[rows[:, None], columns]
    return cv2.resize(square, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
