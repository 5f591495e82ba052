# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Pascal VOC: the development kits of 2007 and 2012, for detection and segmentation."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .render import Picture
from .scenes import Scene

FOLDER = 'VOCdevkit'
CLASS_IDS = dict(bus=6, car=7, person=15)
"""Official indices; everything else is background, 0."""

VOID = 255


def write(root: Path, pictures: Iterable[Picture]) -> None:
    """Write ``root/VOC2007`` and ``root/VOC2012``.

    ``ImageSets/Main`` deals the training scenes out to the two years, so that VOC 07+12 sees each
    of them once; the validation scenes are the test list of 2007. ``ImageSets/Segmentation`` of
    2012 lists all training scenes in ``train.txt``, and again in ``aug.txt`` for
    ``SegmentationClassAug``, whose maps have no void borders.

    Args:
        root: The ``VOCdevkit`` folder.
        pictures: Painted scenes of both splits.
    """
    lists: dict[str, list[str]] = {
        f'{year}/ImageSets/{task}/{name}.txt': []
        for year in ('VOC2007', 'VOC2012')
        for task in ('Main', 'Segmentation')
        for name in ('train', 'val', 'trainval', 'test')
    }
    lists['VOC2012/ImageSets/Segmentation/aug.txt'] = []
    for picture in pictures:
        for year, names in _membership(picture.scene).items():
            prefix = '2012_' if year == 'VOC2012' else ''
            stem = f'{prefix}{picture.scene.number:06d}'
            _write_one(root / year, stem, picture)
            for name in names:
                lists[f'{year}/ImageSets/{name}.txt'].append(stem)
    for name, stems in lists.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(''.join(f'{stem}\n' for stem in stems))


def _membership(scene: Scene) -> dict[str, list[str]]:
    """The years a scene belongs to, and the lists that name it there."""
    if scene.split == 'val':
        return dict(
            VOC2007=['Main/test', 'Segmentation/test'],
            VOC2012=['Main/test', 'Segmentation/val', 'Segmentation/trainval'],
        )
    part = 'val' if scene.index % 8 >= 6 else 'train'
    segmentation = ['Segmentation/train', 'Segmentation/trainval', 'Segmentation/aug']
    if scene.index % 2:
        return dict(VOC2012=['Main/trainval', f'Main/{part}'] + segmentation)
    in_2007 = [f'{task}/{name}' for task in ('Main', 'Segmentation') for name in ('trainval', part)]
    return dict(VOC2007=in_2007, VOC2012=segmentation)


def _write_one(year: Path, stem: str, picture: Picture) -> None:
    folders = ['JPEGImages', 'Annotations', 'SegmentationClass']
    if year.name == 'VOC2012':
        folders.append('SegmentationClassAug')
    for folder in folders:
        (year / folder).mkdir(parents=True, exist_ok=True)
    bgr = picture.image[..., ::-1]
    cv2.imwrite(str(year / 'JPEGImages' / f'{stem}.jpg'), bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
    _annotation(year.name, stem, picture).write(year / 'Annotations' / f'{stem}.xml')
    labels = picture.paint(CLASS_IDS)
    bordered = np.where(_borders(picture), np.uint8(VOID), labels)
    # 2007 has no fourth folder, so the plain labels stay unwritten there.
    for folder, values in zip(folders[2:], (bordered, labels), strict=False):
        image = Image.fromarray(values)
        image.putpalette(_palette().tobytes())
        image.save(year / folder / f'{stem}.png')


def _annotation(year: str, stem: str, picture: Picture) -> ET.ElementTree:
    """The XML of one image. Corners count from 1 and include the last pixel, as VOC has it."""
    width, height = picture.scene.size
    root = ET.Element('annotation')
    _add(root, folder=year, filename=f'{stem}.jpg')
    _add(ET.SubElement(root, 'size'), width=width, height=height, depth=3)
    _add(root, segmented=1)
    for thing in picture.things():
        x0, y0, x1, y1 = thing.box
        node = ET.SubElement(root, 'object')
        _add(
            node,
            name=thing.name,
            pose='Unspecified',
            truncated=int(thing.visible < 0.95),
            difficult=0,
        )
        _add(ET.SubElement(node, 'bndbox'), xmin=x0 + 1, ymin=y0 + 1, xmax=x1, ymax=y1)
    ET.indent(root)
    return ET.ElementTree(root)


def _add(node: ET.Element, **texts: object) -> None:
    for tag, text in texts.items():
        ET.SubElement(node, tag).text = str(text)


def _borders(picture: Picture) -> np.ndarray:
    """A band two pixels wide where a thing meets anything else, bool of shape (height, width)."""
    instances = np.zeros(picture.owner.shape, np.uint8)
    for number, thing in enumerate(picture.things(), start=1):
        instances[thing.mask] = number
    return cv2.morphologyEx(instances, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0


def _palette() -> np.ndarray:
    """VOC's colours, uint8 of shape (256, 3): bits of the index dealt to R, G, B from the top."""
    index = np.arange(256)[:, None]
    shift = np.arange(3)
    colours = sum((index >> (3 * k + shift) & 1) << (7 - k) for k in range(8))
    return np.asarray(colours, np.uint8)
