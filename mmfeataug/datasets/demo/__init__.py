# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Demo data: the same drawn scenes as Pascal VOC, COCO, Cityscapes and ImageNet sets.

Stock dataset classes and configs read them, and nothing has to be downloaded. Shapes stand in for
three classes that all three label sets know: a triangle is a ``person``, an ellipse a ``car``, a
square a ``bus``.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmfeataug.utils.files import write_at_once
from mmfeataug.utils.progress import progress_bar

from . import cityscapes, coco, imagenet, voc
from .render import Picture, render
from .scenes import THINGS, sample_scene

__all__ = ['THINGS', 'make_demo_data']

LAYOUTS = dict(voc=voc, coco=coco, cityscapes=cityscapes, imagenet=imagenet)
MARKER = 'mmfeataug_demo.json'
_VERSION = 1


def make_demo_data(
    root: str | os.PathLike,
    *,
    train: int = 64,
    val: int = 24,
    size: tuple[int, int] = (224, 160),
    seed: int = 0,
    layouts: Sequence[str] = tuple(LAYOUTS),
) -> dict[str, str]:
    """Draw scenes of textured shapes and write them in the layouts of well-known data sets.

    The same arguments give the same files, byte for byte (with the same NumPy, OpenCV and Pillow).
    A layout that already lies there complete is left alone; one that is missing or was interrupted
    is written.

    Args:
        root: Target folder: new, empty, or made by this function with the same arguments (layouts
            may differ).
        train: Number of training scenes, at least 2.
        val: Number of validation scenes, at least 1.
        size: Image ``(width, height)`` in pixels, at least 64 each. Most things are 0.25 to 0.5 of
            the smaller side; stock VOC configs ignore training boxes below 32 pixels, which at the
            default size are 1 in 100.
        seed: Not negative.
        layouts: Any of ``'voc'``, ``'coco'``, ``'cityscapes'``, ``'imagenet'``.

    Returns:
        The folder for each layout, to be used as ``data_root``: ``root/VOCdevkit``, ``root/coco``,
        ``root/cityscapes``, ``root/imagenet``.

    Raises:
        ValueError: If a number is too small or a layout unknown.
        FileExistsError: If ``root`` holds anything else.
    """
    size = (int(size[0]), int(size[1]))
    _check(train, val, size, seed, layouts)
    root = Path(root)
    parameters = dict(version=_VERSION, train=train, val=val, size=list(size), seed=seed)
    complete = _complete_layouts(root, parameters)
    for layout in layouts:
        if layout not in complete:
            _mark(root, parameters, complete)
            with progress_bar() as progress:
                pictures = progress.track(
                    _pictures(train, val, size, seed), total=train + val, description=layout
                )
                LAYOUTS[layout].write(root / LAYOUTS[layout].FOLDER, pictures)
            complete.append(layout)
            _mark(root, parameters, complete)
    return {layout: str(root / LAYOUTS[layout].FOLDER) for layout in layouts}


def _check(train: int, val: int, size: tuple[int, int], seed: int, layouts: Sequence[str]) -> None:
    if train < 2 or val < 1:
        raise ValueError(
            f'train={train}, val={val}: give at least 2 training scenes and 1 validation scene'
        )
    if min(size) < 64:
        raise ValueError(f'size={size}: width and height must be at least 64 pixels')
    if seed < 0:
        raise ValueError(f'seed={seed}: give a seed of 0 or more')
    if isinstance(layouts, str):
        raise ValueError(f'layouts={layouts!r}: give a list, such as [{layouts!r}]')
    unknown = [layout for layout in layouts if layout not in LAYOUTS]
    if unknown or not layouts:
        raise ValueError(f'layouts={list(layouts)}: choose one or more of {list(LAYOUTS)}')


def _complete_layouts(root: Path, parameters: dict[str, Any]) -> list[str]:
    """The layouts that an earlier call with the same parameters has finished in ``root``."""
    marker = root / MARKER
    if not marker.is_file():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise FileExistsError(
                f'root={str(root)!r} is not empty and holds no demo set ({MARKER} is missing): '
                'choose a new folder'
            )
        return []
    found = json.loads(marker.read_text())
    complete = found.pop('layouts')
    if found != parameters:
        raise FileExistsError(
            f'root={str(root)!r} holds a demo set with {found}, but {parameters} was asked for: '
            'choose another folder, or delete this one'
        )
    return complete


def _mark(root: Path, parameters: dict[str, Any], complete: Sequence[str]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    write_at_once(root / MARKER, json.dumps(dict(parameters, layouts=list(complete))))


def _pictures(train: int, val: int, size: tuple[int, int], seed: int) -> Iterator[Picture]:
    """Paint all scenes one after the other."""
    for split, count in (('train', train), ('val', val)):
        for index in range(count):
            yield render(sample_scene(seed, split, index, size))
