# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Cityscapes: fine annotations, and the COCO-style files that mmdet's converter makes of them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from .render import Picture
from .scenes import SPLITS, THINGS

FOLDER = 'cityscapes'
CITY = 'demo'


class Label(NamedTuple):
    """A row of the official label table."""

    id: int
    train_id: int
    colour: tuple[int, int, int]


LABELS = dict(
    static=Label(4, 255, (0, 0, 0)),
    road=Label(7, 0, (128, 64, 128)),
    building=Label(11, 2, (70, 70, 70)),
    pole=Label(17, 5, (153, 153, 153)),
    vegetation=Label(21, 8, (107, 142, 35)),
    sky=Label(23, 10, (70, 130, 180)),
    person=Label(24, 11, (220, 20, 60)),
    car=Label(26, 13, (0, 0, 142)),
    bus=Label(28, 15, (0, 60, 100)),
)

THING_IDS = dict(person=24, rider=25, car=26, truck=27, bus=28, train=31, motorcycle=32, bicycle=33)
"""The eight classes of the instance task; detection files list them all."""


def write(root: Path, pictures: Iterable[Picture]) -> None:
    """Write ``root/{leftImg8bit,gtFine}/{train,val}/demo`` and ``root/annotations``.

    Args:
        root: The ``cityscapes`` folder.
        pictures: Painted scenes of both splits.
    """
    images: dict[str, list[dict]] = {split: [] for split in SPLITS}
    annotations: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for picture in pictures:
        split, number = picture.scene.split, picture.scene.number
        stem = f'{CITY}/{CITY}_{number:06d}_000019_'
        _write_one(root, split, stem, picture)
        width, height = picture.scene.size
        images[split].append(
            dict(
                id=number,
                file_name=f'{stem}leftImg8bit.png',
                width=width,
                height=height,
                segm_file=f'{stem}gtFine_labelIds.png',
            )
        )
        for thing in picture.things():
            x0, y0, x1, y1 = thing.box
            annotations[split].append(
                dict(
                    id=len(annotations[split]) + 1,
                    image_id=number,
                    category_id=THING_IDS[thing.name],
                    iscrowd=0,
                    bbox=[x0, y0, x1 - x0, y1 - y0],
                    area=int(thing.mask.sum()),
                    segmentation=run_lengths(thing.mask),
                )
            )
    (root / 'annotations').mkdir(parents=True, exist_ok=True)
    categories = [dict(id=k, name=name) for name, k in THING_IDS.items()]
    for split in SPLITS:
        content = dict(images=images[split], annotations=annotations[split], categories=categories)
        path = root / 'annotations' / f'instancesonly_filtered_gtFine_{split}.json'
        path.write_text(json.dumps(content))


def _write_one(root: Path, split: str, stem: str, picture: Picture) -> None:
    maps = {
        'leftImg8bit': picture.image[..., ::-1],
        'gtFine_labelIds': picture.paint({name: row.id for name, row in LABELS.items()}),
        'gtFine_labelTrainIds': picture.paint({name: row.train_id for name, row in LABELS.items()}),
        'gtFine_instanceIds': _instance_ids(picture),
        'gtFine_color': np.stack(
            [
                picture.paint({name: row.colour[channel] for name, row in LABELS.items()})
                for channel in (2, 1, 0)
            ],
            axis=-1,
        ),
    }
    for kind, values in maps.items():
        path = root / kind.split('_')[0] / split / f'{stem}{kind}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), values)
    width, height = picture.scene.size
    objects = [dict(label=item.name, polygon=item.outline.tolist()) for item in picture.scene.items]
    path = root / 'gtFine' / split / f'{stem}gtFine_polygons.json'
    path.write_text(json.dumps(dict(imgHeight=height, imgWidth=width, objects=objects)))


def _instance_ids(picture: Picture) -> np.ndarray:
    """``1000 * id + n`` on thing n of its class, else the id; uint16 of shape (height, width)."""
    ids = picture.paint({name: row.id for name, row in LABELS.items()}).astype(np.uint16)
    count = dict.fromkeys(THINGS, 0)
    for thing in picture.things():
        ids[thing.mask] = 1000 * THING_IDS[thing.name] + count[thing.name]
        count[thing.name] += 1
    return ids


def run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed run-length code: lengths of runs down the columns, background first.

    Args:
        mask: bool of shape (height, width).
    """
    flat = np.concatenate([[False], mask.ravel(order='F'), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    # A mask that reaches the last pixel ends with a run of nothing.
    counts = counts[:-1] if counts[-1] == 0 else counts
    return dict(counts=counts.tolist(), size=list(mask.shape))
