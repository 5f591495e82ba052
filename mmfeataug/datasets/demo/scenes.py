# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What is in a demo scene: street-like backdrops with textured shapes that stand in for things."""

from dataclasses import dataclass

import cv2
import numpy as np

THINGS = ('person', 'car', 'bus')
"""Triangles, ellipses and squares. The names exist in VOC, COCO and Cityscapes alike."""

STUFF = ('sky', 'building', 'vegetation', 'road', 'pole', 'static')
"""Backdrop (first four) and clutter: poles, and crosses that Cityscapes would call ``static``."""

SPLITS = ('train', 'val')
_OWN_TEXTURE = dict(person='stripes', car='rings', bus='checks')
_VAL_START = 500_000
_LEAST_VISIBLE = 0.6


@dataclass(frozen=True)
class Texture:
    """A pattern between two colours.

    Args:
        kind: A key of :data:`mmfeataug.datasets.demo.render.PATTERNS`.
        period: Wave length in pixels, or the grain of a random pattern.
        angle: Direction in radians.
        centre: Origin ``(x, y)`` of the pattern in pixels.
        colours: RGB in [0, 255], shape (2, 3): where the pattern is 0 and where it is 1.
        seed: For random patterns.
    """

    kind: str
    period: float
    angle: float
    centre: tuple[float, float]
    colours: np.ndarray
    seed: int


@dataclass(frozen=True)
class Item:
    """One shape.

    Args:
        name: A member of ``THINGS`` or ``STUFF``.
        outline: Corners ``(x, y)`` in pixels, int32 of shape (N, 2), inside the image.
        texture: What it is painted with.
    """

    name: str
    outline: np.ndarray
    texture: Texture

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """Pixels of the whole shape, hidden ones too: bool of shape (height, width)."""
        canvas = np.zeros(size[::-1], np.uint8)
        return cv2.fillPoly(canvas, [self.outline], 1).astype(bool)


@dataclass(frozen=True)
class Light:
    """How the scene is lit and photographed.

    Args:
        gain: Overall brightness factor.
        cast: Factor for R, G and B, shape (3,).
        slope: Brightness difference across the image in x and y, shape (2,).
        noise: Standard deviation of the sensor noise in grey levels.
    """

    gain: float
    cast: np.ndarray
    slope: np.ndarray
    noise: float


@dataclass(frozen=True)
class Scene:
    """Everything a picture and its annotations follow from.

    Args:
        split: ``'train'`` or ``'val'``.
        index: Position in the split.
        size: Image ``(width, height)`` in pixels.
        items: Shapes from back to front.
        light: Light and camera.
        seed: Of the sensor noise.
    """

    split: str
    index: int
    size: tuple[int, int]
    items: tuple[Item, ...]
    light: Light
    seed: int

    @property
    def number(self) -> int:
        """A number unique over both splits, from 1; file names and image ids are made of it."""
        return self.index + 1 + (_VAL_START if self.split == 'val' else 0)


def sample_scene(seed: int, split: str, index: int, size: tuple[int, int]) -> Scene:
    """Draw one scene. It depends on nothing but the arguments, so any order gives the same scenes.

    Args:
        seed: Of the whole set, not negative.
        split: ``'train'`` or ``'val'``.
        index: Position in the split.
        size: Image ``(width, height)`` in pixels.

    Returns:
        A scene with one to four things, each at least 60 % visible.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    items = _backdrop(rng, size)
    names = [THINGS[k] for k in rng.integers(len(THINGS), size=rng.integers(2, 5))]
    names += ['static'] * rng.integers(1, 4) + ['pole'] * rng.integers(0, 3)
    rng.shuffle(names)
    visible: dict[int, np.ndarray] = {}
    area: dict[int, int] = {}
    for name in names:
        for _ in range(20):
            item = _shape(rng, name, size)
            mask = item.mask(size)
            left = {k: seen & ~mask for k, seen in visible.items()}
            if all(seen.sum() >= _LEAST_VISIBLE * area[k] for k, seen in left.items()):
                if name in THINGS:
                    left[len(items)], area[len(items)] = mask, int(mask.sum())
                visible = left
                items.append(item)
                break
    light = Light(
        gain=rng.uniform(0.6, 1.15),
        cast=rng.uniform(0.88, 1.12, 3),
        slope=rng.uniform(-0.35, 0.35, 2),
        noise=rng.uniform(2, 7),
    )
    return Scene(split, index, size, tuple(items), light, int(rng.integers(2**31)))


def _backdrop(rng: np.random.Generator, size: tuple[int, int]) -> list:
    """Sky over everything, then a skyline of houses and trees, then the road."""
    width, height = size
    scale = _scale(size)
    horizon = height * rng.uniform(0.45, 0.7)
    items = [_stuff(rng, 'sky', _rectangle(0, 0, width, height, size), scale)]
    x = -width * rng.uniform(0, 0.15)
    while x < width:
        step = width * rng.uniform(0.14, 0.34)
        top = horizon * rng.uniform(0.25, 0.8)
        if rng.random() < 0.5:
            outline = _rectangle(x, top, x + step, height, size)
            items.append(_stuff(rng, 'building', outline, scale))
        else:
            angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
            radius = rng.uniform(0.8, 1.15, (28, 1)) * (0.65 * step, horizon - top)
            outline = _within((x + step / 2, horizon) + radius * _directions(angles), size)
            items.append(_stuff(rng, 'vegetation', outline, scale))
        x += step
    left, right = horizon + height * rng.uniform(-0.06, 0.06, 2)
    road = np.array([(0, left), (width, right), (width, height), (0, height)])
    return items + [_stuff(rng, 'road', _within(road, size), scale)]


_STUFF_LOOK = dict(
    sky=('clouds', (14, 30), (120, 165, 215), 35),
    building=('windows', (9, 15), (140, 115, 100), 60),
    vegetation=('leaves', (3, 6), (75, 115, 60), 60),
    road=('grain', (2, 4), (110, 108, 112), 35),
    pole=('stripes', (10, 20), (125, 120, 115), 30),
)
"""Pattern, range of its period in pixels at 160 lines, mean colour, contrast in grey levels."""


def _stuff(rng: np.random.Generator, name: str, outline: np.ndarray, scale: float) -> Item:
    kind, periods, colour, contrast = _STUFF_LOOK[name]
    base = np.array(colour) + rng.normal(0, 10, 3)
    colours = base + np.array([[-0.5], [0.5]]) * contrast * rng.uniform(0.6, 1.3)
    texture = Texture(
        kind,
        rng.uniform(*periods) * scale,
        0.0,
        tuple(outline[0].tolist()),
        np.clip(colours, 10, 245),
        int(rng.integers(2**31)),
    )
    return Item(name, outline, texture)


def _shape(rng: np.random.Generator, name: str, size: tuple[int, int]) -> Item:
    """A thing or a piece of clutter somewhere in the image."""
    width, height = size
    if name == 'pole':
        x, thick = rng.uniform(0, width), rng.uniform(0.01, 0.025) * width
        top, bottom = height * rng.uniform((0.05, 0.75), (0.35, 1.0))
        outline = _rectangle(x, top, x + thick, bottom, size)
        return _stuff(rng, 'pole', outline, _scale(size))
    # The smallest thing is a little wider than 32 pixels at the default size: stock VOC configs
    # (``bbox_min_size=32``) ignore smaller boxes.
    low, high = (0.145, 0.27) if name in THINGS else (0.06, 0.11)
    radius = min(size) * np.exp(rng.uniform(np.log(low), np.log(high)))
    centre = rng.uniform((radius, radius), (width - radius, height - radius))
    turn = rng.uniform(-0.35, 0.35)
    if name == 'person':
        spread = np.array([0, 2 * np.pi / 3, 4 * np.pi / 3])
        corners = radius * _directions(spread - np.pi / 2 + turn)
    elif name == 'car':
        corners = radius * _directions(np.linspace(0, 2 * np.pi, 40, endpoint=False))
        corners = corners * (1, rng.uniform(0.8, 1)) @ _rotation(turn)
    elif name == 'bus':
        corners = radius * _directions(np.pi / 4 + turn + np.arange(4) * np.pi / 2) * 1.1
    else:
        arm = np.array([(1, 0.3), (0.3, 0.3), (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3)])
        corners = radius * np.concatenate([arm, -arm]) @ _rotation(rng.uniform(0, np.pi))
    # Neither colour nor texture alone gives the class away: colours are free, and some things wear
    # the texture of another class.
    kinds = list(_OWN_TEXTURE.values())
    own = name in THINGS and rng.random() < 0.8
    kind = _OWN_TEXTURE[name] if own else kinds[rng.integers(len(kinds))]
    dark = rng.uniform(20, 150, 3)
    colours = np.stack([dark, dark + rng.uniform(40, 105, 3)])
    texture = Texture(
        kind,
        rng.uniform(6, 11) * _scale(size),
        turn + rng.uniform(-0.3, 0.3),
        tuple(centre.tolist()),
        colours,
        int(rng.integers(2**31)),
    )
    return Item(name, _within(centre + corners, size), texture)


def _scale(size: tuple[int, int]) -> float:
    """Textures grow with the image, but get no finer than what small images can show."""
    return max(1.0, min(size) / 160)


def _directions(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _rotation(angle: float) -> np.ndarray:
    return np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])


def _rectangle(x0: float, y0: float, x1: float, y1: float, size: tuple[int, int]) -> np.ndarray:
    return _within(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), size)


def _within(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Round to whole pixels: the outline that is written is then the one that is painted."""
    return np.clip(np.rint(points), 0, np.array(size) - 1).astype(np.int32)
