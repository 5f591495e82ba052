# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Cityscapes: fine annotations, and COCO-style files with the objects of its instance task."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from .coco import Annotations
from .render import Picture
from .scenes import SPLITS, THINGS

FOLDER = 'cityscapes'
CITY = 'demo'


class Label(NamedTuple):
    """A row of the official label table."""

    id: int
    train_id: int


LABELS = dict(
    static=Label(4, 255),
    road=Label(7, 0),
    building=Label(11, 2),
    pole=Label(17, 5),
    vegetation=Label(21, 8),
    sky=Label(23, 10),
    person=Label(24, 11),
    car=Label(26, 13),
    bus=Label(28, 15),
)

THING_IDS = dict(person=24, rider=25, car=26, truck=27, bus=28, train=31, motorcycle=32, bicycle=33)
"""The eight classes of the instance task; detection files list them all."""


def write(root: Path, pictures: Iterable[Picture]) -> None:
    """Write ``root/{leftImg8bit,gtFine}/{train,val}/demo`` and ``root/annotations``.

    Args:
        root: The ``cityscapes`` folder.
        pictures: Painted scenes of both splits.
    """
    categories = [dict(id=k, name=name) for name, k in THING_IDS.items()]
    contents = {split: Annotations(categories) for split in SPLITS}
    for picture in pictures:
        split = picture.scene.split
        stem = f'{CITY}/{CITY}_{picture.scene.number:06d}_000019_'
        _write_one(root, split, stem, picture)
        contents[split].add(
            picture, f'{stem}leftImg8bit.png', segm_file=f'{stem}gtFine_labelIds.png'
        )
    for split, content in contents.items():
        content.write(root / 'annotations' / f'instancesonly_filtered_gtFine_{split}.json')


def _write_one(root: Path, split: str, stem: str, picture: Picture) -> None:
    maps = {
        'leftImg8bit': picture.image[..., ::-1],
        'gtFine_labelIds': picture.paint({name: row.id for name, row in LABELS.items()}),
        'gtFine_labelTrainIds': picture.paint({name: row.train_id for name, row in LABELS.items()}),
        'gtFine_instanceIds': _instance_ids(picture),
    }
    for kind, values in maps.items():
        path = root / kind.split('_')[0] / split / f'{stem}{kind}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), values)


def _instance_ids(picture: Picture) -> np.ndarray:
    """``1000 * id + n`` on thing n of its class, else the id; uint16 of shape (height, width)."""
    ids = picture.paint({name: row.id for name, row in LABELS.items()}).astype(np.uint16)
    count = dict.fromkeys(THINGS, 0)
    for thing in picture.things():
        ids[thing.mask] = 1000 * THING_IDS[thing.name] + count[thing.name]
        count[thing.name] += 1
    return ids
