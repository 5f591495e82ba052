# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Paint a scene: the picture, and for every pixel the shape that is seen there."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from .scenes import THINGS, Item, Scene, Texture


@dataclass(frozen=True)
class Thing:
    """A thing as far as it is visible.

    Args:
        name: Class name, a member of ``THINGS``.
        mask: Visible pixels, bool of shape (height, width).
        box: ``(x0, y0, x1, y1)`` of ``mask`` in pixels; ``x1`` and ``y1`` lie one past the last.
        visible: Share of the shape's pixels that nothing hides, in (0, 1].
    """

    name: str
    mask: np.ndarray
    box: tuple[int, int, int, int]
    visible: float


@dataclass(frozen=True)
class Picture:
    """A painted scene.

    Args:
        scene: Where it comes from.
        image: RGB, uint8 of shape (height, width, 3).
        owner: Index into ``scene.items`` of the front-most shape, int16 of shape (height, width).
    """

    scene: Scene
    image: np.ndarray
    owner: np.ndarray

    def things(self) -> list[Thing]:
        """The things from back to front."""
        found = []
        for number, item in enumerate(self.scene.items):
            if item.name in THINGS:
                mask = self.owner == number
                x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
                visible = float(mask.sum() / item.mask(self.scene.size).sum())
                found.append(Thing(item.name, mask, (x, y, x + width, y + height), visible))
        return found

    def paint(self, values: dict[str, int]) -> np.ndarray:
        """A map with one value a class name, 0 for others, uint8 of shape (height, width)."""
        table = [values.get(item.name, 0) for item in self.scene.items]
        return np.array(table, np.uint8)[self.owner]


def render(scene: Scene) -> Picture:
    """Paint ``scene`` from back to front, then light it and add sensor noise."""
    width, height = scene.size
    canvas = np.zeros((height, width, 3), np.float32)
    owner = np.zeros((height, width), np.int16)
    for number, item in enumerate(scene.items):
        if item.name in THINGS:
            _cast_shadow(canvas, item)
        x, y, box_width, box_height = cv2.boundingRect(item.outline)
        window = slice(y, y + box_height), slice(x, x + box_width)
        mask = item.mask(scene.size)[window]
        canvas[window][mask] = _pattern(item.texture, (x, y), (box_height, box_width))[mask]
        owner[window][mask] = number
    return Picture(scene, _photograph(canvas, scene), owner)


def _cast_shadow(canvas: np.ndarray, item: Item) -> None:
    offset = max(2, min(canvas.shape[:2]) // 40)
    shadow = np.zeros(canvas.shape[:2], np.float32)
    cv2.fillPoly(shadow, [item.outline + np.int32(offset)], 0.5)
    canvas *= 1 - cv2.blur(shadow, (offset, offset))[..., None]


def _photograph(canvas: np.ndarray, scene: Scene) -> np.ndarray:
    width, height = scene.size
    slope_x, slope_y = scene.light.slope
    slant = slope_x * np.linspace(-1, 1, width) + slope_y * np.linspace(-1, 1, height)[:, None]
    level = scene.light.gain * (1 + slant[..., None]) * scene.light.cast
    rng = np.random.default_rng(scene.seed)
    image = cv2.GaussianBlur(canvas, (3, 3), 0.6) * level.astype(np.float32)
    image += np.float32(scene.light.noise) * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _pattern(texture: Texture, start: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """RGB of the texture in a window that starts at pixel ``start``, float of shape (*shape, 3)."""
    x = np.arange(shape[1]) + (start[0] - texture.centre[0])
    y = np.arange(shape[0])[:, None] + (start[1] - texture.centre[1])
    cos, sin = np.cos(texture.angle), np.sin(texture.angle)
    u, v = (cos * x + sin * y) / texture.period, (cos * y - sin * x) / texture.period
    level = PATTERNS[texture.kind](u, v, texture)[..., None]
    dark, light = texture.colours
    return dark + level * (light - dark)


def _wave(t: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(2 * np.pi * t)


def _noise(u: np.ndarray, v: np.ndarray, texture: Texture) -> np.ndarray:
    """Smooth random values in [0, 1] with a grain of one period."""
    height, width = u.shape
    coarse = (int(height / texture.period) + 2, int(width / texture.period) + 2)
    values = np.random.default_rng(texture.seed).random(coarse)
    return np.clip(cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray, Texture], np.ndarray]] = dict(
    stripes=lambda u, v, _: _wave(u),
    rings=lambda u, v, _: _wave(np.hypot(u, v)),
    checks=lambda u, v, _: (np.floor(2 * u) + np.floor(2 * v)) % 2,
    windows=lambda u, v, _: ((u % 1 < 0.55) & (v % 1 < 0.6)).astype(float),
    clouds=_noise,
    leaves=_noise,
    grain=_noise,
)
"""Each takes the coordinates in periods, both (height, width), and gives levels in [0, 1]."""
