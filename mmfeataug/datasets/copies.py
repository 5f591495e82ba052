# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corrupted copies of a test set on disk, with a manifest of their origin."""

import contextlib
import io
import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from os.path import normpath
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np

from mmfeataug.utils.files import write_at_once

MANIFEST = 'manifest.json'
TOOL = 'python tools/dataset_converters/make_corrupted.py CONFIG'
LIBRARIES = ('imagecorruptions-imaug', 'imagecorruptions', 'kornia')


def library_version() -> dict[str, str]:
    """Installed packages that corrupt images, with their versions."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def checksum(image: np.ndarray) -> int:
    """A number for the type, the shape and the values of an image."""
    head = f'{image.dtype.str}{image.shape}'.encode()
    return zlib.crc32(np.ascontiguousarray(image).data, zlib.crc32(head))


def key_of(results: Mapping[str, Any]) -> tuple[str, ...]:
    """What an image is called: the parts of its path, or its number where the data set brings it
    along.

    Raises:
        ValueError: If it has neither.
    """
    if (path := results.get('img_path')) is not None:
        return PurePath(normpath(path)).parts
    number = results.get('img_id', results.get('sample_idx'))
    if number is None:
        raise ValueError(
            "an image is told by results['img_path'], results['img_id'] or results['sample_idx'], "
            f'and none is among {sorted(results)}: load it by LoadImageFromFile'
        )
    return (str(number),)


class CorruptedCopies:
    """A folder of corrupted images of one test set.

    They lie at ``<corruption>/<severity>/<path below the folder that all images share>.png``, as
    ``.npy`` where images are neither of 8 nor of 16 bits. ``manifest.json`` has a checksum of each
    clean image as it was loaded, the conditions that are complete, and the library's version.

    Args:
        folder: Existing or new folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.images: dict[str, int] = {}
        self.conditions: dict[str, list[int]] = {}
        self.library: dict[str, str] = {}

    @classmethod
    def read(cls, folder: str | Path) -> 'CorruptedCopies':
        """Read the manifest of a folder.

        Raises:
            ValueError: If it has no manifest, or another version of the library than the one that
                is installed made it.
        """
        copies, path = cls(folder), Path(folder, MANIFEST)
        if not path.is_file():
            raise ValueError(f'{folder} has no {MANIFEST}: {copies.remedy()}')
        try:
            found = json.loads(path.read_text())
            copies.images, copies.conditions = found['images'], found['conditions']
            copies.library = found['library']
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{path} is no list of corrupted copies: {error!r}') from error
        here = library_version()
        if here and here != copies.library:
            raise ValueError(
                f'{folder} was made by {_words(copies.library)}, here is {_words(here)}, which may '
                'draw other images: make them anew in another folder, or install that version'
            )
        return copies

    def write(self) -> None:
        """Write the manifest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        said = dict(library=self.library, conditions=self.conditions, images=self.images)
        write_at_once(self.folder / MANIFEST, json.dumps(said, indent=1) + '\n')

    def remedy(self, corruption: str = '', severity: int = 0) -> str:
        """The command that makes what is missing."""
        which = f' --corruptions {corruption} --severities {severity}' if corruption else ''
        return f'make the copies by {TOOL} --out {self.folder}{which}'

    def refuse_missing(self, corruption: str, severity: int) -> None:
        """Check that a condition is complete.

        Raises:
            ValueError: With the remedy.
        """
        if severity not in self.conditions.get(corruption, ()):
            raise ValueError(
                f'{self.folder} lacks images of {corruption} {severity}: '
                f'{self.remedy(corruption, severity)}'
            )

    def name(self, results: Mapping[str, Any]) -> str:
        """Name of an image in the folder: the part of its path that makes it unique.

        Raises:
            ValueError: If it is not of the test set.
        """
        parts = key_of(results)
        tails = ('/'.join(parts[i:]) for i in range(len(parts)))
        found = next((tail for tail in tails if tail in self.images), None)
        if found is None:
            raise ValueError(
                f'{self.folder} has no copies of {"/".join(parts)}: it was made from another test '
                f'set. {self.remedy().capitalize()} with another folder'
            )
        return found

    def path(self, name: str, corruption: str, severity: int, dtype: np.dtype) -> Path:
        """File of a corrupted image."""
        suffix = '.png' if dtype in (np.uint8, np.uint16) else '.npy'
        return self.folder / corruption / str(severity) / f'{name}{suffix}'

    def check(self, name: str, image: np.ndarray) -> None:
        """Check that the copies were made from this clean image.

        Raises:
            ValueError: With the remedy.
        """
        if checksum(image) != self.images[name]:
            raise ValueError(
                f'{self.folder} was made from another {name}, or from the same file loaded '
                f'otherwise (here {image.dtype}, {image.shape}): another test set or LoadImage... '
                f'step. {self.remedy().capitalize()} with another folder'
            )


def names_of(keys: Sequence[tuple[str, ...]]) -> list[str]:
    """Paths of images below the folder that all of them share, in their order.

    Raises:
        ValueError: If the end of one path is another's name.
    """
    folders = zip(*(key[:-1] for key in keys), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda parts: len(set(parts)) == 1, folders))
    names = ['/'.join(key[shared:]) for key in keys]
    known = set(names)
    for key in keys:
        longer = ('/'.join(key[i:]) for i in range(shared))
        if other := next((tail for tail in longer if tail in known), None):
            raise ValueError(
                f'{"/".join(key)} could be taken for {other!r}: rename the folder that has a '
                'folder of its own name within'
            )
    return names


def encode(image: np.ndarray) -> bytes:
    """An image as the content of a file, without loss.

    Args:
        image: BGR of shape (height, width, 3), or grey of shape (height, width[, 1]).
    """
    if image.dtype in (np.uint8, np.uint16):
        # The quickest level: noise does not compress.
        _, data = cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        return data.tobytes()
    file = io.BytesIO()
    np.save(file, image, allow_pickle=False)
    return file.getvalue()


def decode(content: bytes, path: Path) -> np.ndarray:
    """What :func:`encode` was given.

    Raises:
        ValueError: If the file is broken.
    """
    if path.suffix == '.npy':
        return np.load(io.BytesIO(content), allow_pickle=False)
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f'{path} is no PNG: delete it and make it again')
    return image


def _words(library: Mapping[str, str]) -> str:
    return ' '.join(f'{name} {number}' for name, number in library.items()) or 'no library'
