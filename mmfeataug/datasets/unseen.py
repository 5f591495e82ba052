# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corruptions that nobody trained near: no method and no opponent here uses their like.

After the transforms of these names in kornia (https://kornia.readthedocs.io), drawn in NumPy and
OpenCV: kornia 0.7, the last with PyTorch 2.1, and 0.9 draw other maps, spots and drops from the
same numbers, and two families of OpenMMLab would be judged by different images.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

AMOUNTS: dict[str, tuple[Any, ...]] = dict(
    plasma_brightness=(0.45, 0.55, 0.7, 0.85, 1.0),  # the largest change
    plasma_contrast=(1.0, 1.5, 2.5, 4.0, 6.0),  # exponent of factors in 0 to 1.5
    # How deep, and over which share of the image.
    plasma_shadow=((0.55, 0.4), (0.68, 0.42), (0.78, 0.45), (0.85, 0.5), (0.92, 0.55)),
    planckian_jitter=(0.25, 0.4, 0.7, 1.0, 2.0),  # how many times the light of a lamp or the sky
    rgb_shift=(0.1, 0.16, 0.24, 0.3, 0.4),  # of each channel
    linear_illumination=(0.45, 0.6, 0.75, 0.88, 1.0),  # change at the bright or dark end
    gaussian_illumination=(0.45, 0.58, 0.7, 0.85, 1.0),  # change in the centre of the spot
    salt_and_pepper=(0.01, 0.015, 0.025, 0.045, 0.08),  # share of pixels
    rain=(0.12, 0.17, 0.23, 0.3, 0.4),  # share of the image under drops, overlaps counted twice
    median_blur=(5, 11, 19, 29, 41),  # side of the window in pixels, odd
)
"""What severities 1 to 5 mean, in order. Values are fractions of the whole range of brightness."""

Pixels = np.ndarray
"""RGB, float32 of shape (height, width, 3), 0 to 1."""


def corrupt_unseen(image: np.ndarray, corruption: str, severity: int) -> np.ndarray:
    """One of ``AMOUNTS``, with what is random (signs, places, maps) from NumPy's global stream, as
    the package ``imagecorruptions`` has it. Pixels stay where they are.

    Args:
        image: RGB, uint8 of shape (height, width, 3).
        corruption: Name of the corruption.
        severity: 1 to 5.

    Returns:
        Array like ``image``.
    """
    pixels = image.astype(np.float32) / 255
    corrupted = FUNCTIONS[corruption](pixels, AMOUNTS[corruption][severity - 1])
    return np.rint(corrupted.clip(0, 1) * 255).astype(np.uint8)


def _lit(pixels: Pixels, field: np.ndarray) -> Pixels:
    """More light, which is added and clips, or less, which leaves a part; by coin.

    Args:
        pixels: The image.
        field: (height, width, 1), 0 (nothing changes) to 1.
    """
    return pixels + field if np.random.randint(2) else pixels * (1 - field)


def _plasma(pixels: Pixels, decay: float = 1.7) -> np.ndarray:
    """A fractal map of shape (height, width, 1), 0 to 1; a larger ``decay`` is smoother."""
    from imagecorruptions.corruptions import plasma_fractal

    height, width = pixels.shape[:2]
    side = 1 << (max(height, width) - 1).bit_length()
    field = plasma_fractal(side, decay)[:height, :width, None].astype(np.float32)
    return (field - field.min()) / max(float(np.ptp(field)), 1e-6)


def plasma_brightness(pixels: Pixels, amount: float) -> Pixels:
    """Clouds that brighten or darken."""
    return _lit(pixels, amount * _plasma(pixels))


def plasma_contrast(pixels: Pixels, amount: float) -> Pixels:
    """Contrast that is lost in places and too much in others."""
    factor = (1.5 * _plasma(pixels)) ** np.float32(amount)
    mean = pixels.mean((0, 1))
    return (pixels - mean) * factor + mean


def plasma_shadow(pixels: Pixels, amount: tuple[float, float]) -> Pixels:
    """Patches of shadow with sharp, ragged borders."""
    depth, share = amount
    field = _plasma(pixels)
    return pixels * (1 - np.float32(depth) * (field < np.quantile(field, share)))


def planckian_jitter(pixels: Pixels, amount: float) -> Pixels:
    """The light of a lamp or of a blue sky, as black bodies of 4000 and of 15000 K."""
    from kornia.augmentation import RandomPlanckianJitter

    row = np.random.choice((2, 24))
    red, blue = RandomPlanckianJitter('blackbody').pl[row].tolist()
    return pixels * np.array((red**amount, 1, blue**amount), np.float32)


def rgb_shift(pixels: Pixels, amount: float) -> Pixels:
    """One channel up and the others down, or the other way round."""
    shift = np.full(3, np.random.choice((-amount, amount)), np.float32)
    shift[np.random.randint(3)] *= -1
    return pixels + shift


def linear_illumination(pixels: Pixels, amount: float) -> Pixels:
    """Brighter or darker toward one side or corner."""
    height, width = pixels.shape[:2]
    angle = np.random.randint(8) * np.pi / 4
    y, x = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[None, :, None]
    slope = x * np.cos(angle) + y * np.sin(angle)
    ramp = (slope - slope.min()) / np.ptp(slope)
    return _lit(pixels, amount * ramp.astype(np.float32))


def gaussian_illumination(pixels: Pixels, amount: float) -> Pixels:
    """A spot of light or of dark."""
    height, width = pixels.shape[:2]
    (cy, cx), (sy, sx) = np.random.uniform(0.1, 0.9, 2), np.random.uniform(0.2, 0.5, 2)
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    spot = np.exp(-(((y - cy) / sy) ** 2 + ((x - cx) / sx) ** 2) / 2)
    return _lit(pixels, amount * spot.astype(np.float32))


def salt_and_pepper(pixels: Pixels, amount: float) -> Pixels:
    """White and black pixels, as many of each."""
    drawn = np.random.random_sample((*pixels.shape[:2], 1))
    return np.where(drawn < amount, np.float32(drawn < amount / 2), pixels)


def rain(pixels: Pixels, amount: float) -> Pixels:
    """Grey streaks, all at one angle."""
    height, width = pixels.shape[:2]
    length = max(min(height, width) // 16, 4)
    thickness = max(min(height, width) // 240, 1)
    dx, dy = np.random.randint(-length // 2, length // 2 + 1), length
    drops = np.zeros((height, width), np.uint8)
    for x, y in np.random.random_sample((round(amount * height * width / (length * thickness)), 2)):
        start = int(x * (width + length) - length / 2), int(y * (height + length) - length / 2)
        cv2.line(drops, start, (start[0] + dx, start[1] + dy), 1, thickness)
    return np.where(drops[..., None] > 0, np.float32(200 / 255), pixels)


def median_blur(pixels: Pixels, amount: int) -> Pixels:
    """The median of a window, which wipes out what is thin and keeps edges."""
    levels = np.rint(pixels * 255).astype(np.uint8)
    return cv2.medianBlur(levels, amount).astype(np.float32) / 255


FUNCTIONS: dict[str, Callable[..., Pixels]] = {
    function.__name__: function
    for function in (
        *(plasma_brightness, plasma_contrast, plasma_shadow, planckian_jitter, rgb_shift),
        *(linear_illumination, gaussian_illumination, salt_and_pepper, rain, median_blur),
    )
}
