# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""COCO: instances of 2017 with the 80 official categories."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .render import Picture
from .scenes import SPLITS

FOLDER = 'coco'

_NAMES = dict(
    person='person',
    vehicle='bicycle,car,motorcycle,airplane,bus,train,truck,boat',
    outdoor='traffic light,fire hydrant,stop sign,parking meter,bench',
    animal='bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe',
    accessory='backpack,umbrella,handbag,tie,suitcase',
    sports='frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,'
    'surfboard,tennis racket',
    kitchen='bottle,wine glass,cup,fork,knife,spoon,bowl',
    food='banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake',
    furniture='chair,couch,potted plant,bed,dining table,toilet',
    electronic='tv,laptop,mouse,remote,keyboard,cell phone',
    appliance='microwave,oven,toaster,sink,refrigerator',
    indoor='book,clock,vase,scissors,teddy bear,hair drier,toothbrush',
)
_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


def categories() -> list[dict]:
    """The official list: ids 1 to 90 with ten gaps."""
    pairs = [(group, name) for group, names in _NAMES.items() for name in names.split(',')]
    ids = [k for k in range(1, 91) if k not in _UNUSED_IDS]
    return [
        dict(supercategory=group, id=k, name=name)
        for k, (group, name) in zip(ids, pairs, strict=True)
    ]


def write(root: Path, pictures: Iterable[Picture]) -> None:
    """Write ``root/{train,val}2017`` and ``root/annotations/instances_{train,val}2017.json``.

    Args:
        root: The ``coco`` folder.
        pictures: Painted scenes of both splits.
    """
    contents = {split: Annotations(categories()) for split in SPLITS}
    for picture in pictures:
        scene = picture.scene
        file_name = f'{scene.number:012d}.jpg'
        folder = root / f'{scene.split}2017'
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(
            str(folder / file_name), picture.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95]
        )
        contents[scene.split].add(picture, file_name, license=1)
    for split, content in contents.items():
        content.write(
            root / 'annotations' / f'instances_{split}2017.json',
            info=dict(description='mmfeataug demo scenes', version='1.0', year=2017),
            licenses=[dict(id=1, name='Apache-2.0', url='')],
        )


class Annotations:
    """What a COCO file says of one split.

    Args:
        categories: Each with ``id`` and ``name``.
    """

    def __init__(self, categories: Sequence[dict]) -> None:
        self._categories = categories
        self._images: list[dict] = []
        self._things: list[dict] = []

    def add(self, picture: Picture, file_name: str, **more: Any) -> None:
        """Add an image with its things; ``more`` is said of the image."""
        ids = {category['name']: category['id'] for category in self._categories}
        number, (width, height) = picture.scene.number, picture.scene.size
        self._images.append(
            dict(id=number, file_name=file_name, width=width, height=height, **more)
        )
        for thing in picture.things():
            x0, y0, x1, y1 = thing.box
            self._things.append(
                dict(
                    id=len(self._things) + 1,
                    image_id=number,
                    category_id=ids[thing.name],
                    iscrowd=0,
                    bbox=[x0, y0, x1 - x0, y1 - y0],
                    area=int(thing.mask.sum()),
                    segmentation=polygons(thing.mask),
                )
            )

    def write(self, path: Path, **head: Any) -> None:
        """Write the file, ``head`` first."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = dict(images=self._images, annotations=self._things, categories=self._categories)
        path.write_text(json.dumps({**head, **content}))


def polygons(mask: np.ndarray) -> list[list[float]]:
    """The outlines of a mask along pixel edges, so that pycocotools fills exactly the mask again.

    Args:
        mask: bool of shape (height, width).

    Returns:
        One flat list ``x, y, x, y, ...`` in pixels for each connected part. COCO's polygons know no
        holes: a part with a hole is cut in two there.
    """
    # Each pixel becomes a 2 x 2 block, so that a contour, which runs through pixel centres, tells
    # near edges from far ones.
    blocks = np.kron(mask.astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, hierarchy = cv2.findContours(blocks, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for contour, links in zip(contours, hierarchy[0] if contours else (), strict=True):
        if links[3] >= 0:
            cut = int(contour[:, 0, 0].mean() + 1) // 2
            columns = np.arange(mask.shape[1])
            return polygons(mask & (columns < cut)) + polygons(mask & (columns >= cut))
    return [((contour[:, 0] + 1) // 2).ravel().tolist() for contour in contours]
