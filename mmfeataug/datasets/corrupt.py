# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Common image corruptions as a pipeline step with reproducible noise."""

import contextlib
import hashlib
import importlib
import inspect
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from mmcv.transforms import BaseTransform

from mmfeataug.registry import TRANSFORMS
from mmfeataug.utils.corruptions import ALL, FAMILIES
from mmfeataug.utils.files import write_at_once
from mmfeataug.utils.images import image_key, seed_from
from mmfeataug.utils.pixels import check_range, range_of

from .cache import all_versions, encode, read, suffix_of
from .unseen import corrupt_unseen


@TRANSFORMS.register_module()
class Corrupt(BaseTransform):
    """Corrupt the image as in `Benchmarking Robustness in Object Detection`_.

    Put it right after ``LoadImageFromFile``, in mmdet, mmseg and mmpretrain pipelines alike, or
    first, with ``rgb=True``, where the data set brings its images along, as mmpretrain's CIFAR. The
    corruptions are those of the package ``imagecorruptions-imaug``, and the unseen ones of
    :mod:`mmfeataug.datasets.unseen`.

    Randomness is seeded by the file name (without its folder), the corruption and the severity: any
    number of workers, any order and any folder give the same noise in the same image. NumPy's
    global random state is afterwards what it was before.

    Required Keys: ``img`` (BGR of shape (height, width, 3), or grey of shape (height, width) or
    (height, width, 1), both sides 32 pixels or more) and ``img_path``, ``img_id`` or
    ``sample_idx``.

    Modified Keys: ``img`` (same shape and dtype).

    Args:
        corruption: A name in ``mmfeataug.evaluation.FAMILIES``.
        severity: 1 (light) to 5 (strong); 0 leaves the image unchanged. Defaults to 1.
        rgb: Whether images are RGB already. Defaults to False.
        image_range: Smallest and largest value of the images. Defaults to None: those of their
            type, 0 to 255 in floating point. The corruptions work on 8 bits.
        cache: Folder where corrupted images are kept, as
            ``<corruption>/<severity>/<name>-<digest>.png``; what is there is read. The digest is of
            all that the image depends on: the clean pixels, the settings, versions of libraries.
            Defaults to None: nothing is kept.

    Raises:
        ValueError: If ``corruption`` or ``severity`` is unknown, or the image is not what the
            corruptions work on.
        ImportError: If a package that the corruption needs is missing.

    Note:
        The library is written for RGB, so channels are reversed for it. mmdet's own
        ``Corrupt``, up to 3.3, passes BGR: frost, spatter, snow and JPEG differ a little.

    .. _Benchmarking Robustness in Object Detection: https://arxiv.org/abs/1907.07484
    """

    def __init__(
        self,
        corruption: str,
        severity: int = 1,
        rgb: bool = False,
        image_range: tuple[float, float] | None = None,
        cache: str | None = None,
    ) -> None:
        if corruption not in ALL:
            raise ValueError(
                f'corruption={corruption!r} is unknown: choose one of {", ".join(ALL)}'
            )
        if severity not in range(6):
            raise ValueError(
                f'severity={severity!r}: give a whole number from 1 to 5, or 0 for no corruption'
            )
        if severity:
            _library('kornia' if corruption in FAMILIES['unseen'] else 'imagecorruptions')
        self.corruption = corruption
        self.severity = int(severity)
        check_range(image_range)
        self.rgb, self.image_range = rgb, image_range
        self.cache, self._versions = cache, all_versions()

    def transform(self, results: dict) -> dict:
        """Replace ``results['img']`` by its corrupted version."""
        if self.severity:
            image, seed = results['img'], self.seed(results)
            if self.cache is None:
                results['img'] = self._corrupted(image, seed)
            else:
                results['img'] = self._cached(image, seed, image_key(results))
        return results

    def _cached(self, image: np.ndarray, seed: int, name: str) -> np.ndarray:
        """The corrupted image from the cache, where it is put if it is missing or damaged."""
        head = f'{seed}|{image.dtype.str}{image.shape}|{self.rgb}|{self.image_range}'
        digest = hashlib.sha256(f'{head}|{self._versions}|'.encode())
        digest.update(np.ascontiguousarray(image).data)
        # The name is for people, and names of files have at most 255 bytes.
        name = f'{Path(name).stem[:50]}-{digest.hexdigest()[:20]}{suffix_of(image.dtype)}'
        path = Path(str(self.cache), self.corruption, str(self.severity), name)
        found = read(path, image, self.rgb)
        if found is None:
            found = self._corrupted(image, seed)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_at_once(path, encode(found, self.rgb))
            except OSError as error:
                warnings.warn(
                    f'cache={self.cache!r}: corrupted images cannot be kept there ({error}), so '
                    'that each test makes them anew: give another folder, or none',
                    stacklevel=2,
                )
        return found

    def _corrupted(self, image: np.ndarray, seed: int) -> np.ndarray:
        bands = image if image.ndim == 3 else image[..., None]
        if bands.shape[2] not in (1, 3) or min(bands.shape[:2]) < 32:
            raise ValueError(
                f'Corrupt got an image of shape {image.shape}: it needs 1 or 3 channels and at '
                "least 32 x 32 pixels (color_type='color' of LoadImageFromFile)"
            )
        low, high = range_of(image, self.image_range)
        step = (high - low) / 255
        order = slice(None, None, None if self.rgb else -1)
        scaled, levels = image.dtype != np.uint8 or step != 1 or low != 0, bands
        if scaled:
            levels = np.rint((bands.astype(np.float64) - low) / step).clip(0, 255)
        # A grey image as three equal channels, of which one comes back.
        rgb = levels.repeat(3 // bands.shape[2], 2)[..., order].astype(np.uint8)
        rgb = np.ascontiguousarray(rgb)
        corrupted = corrupt_image(rgb, self.corruption, self.severity, seed)
        corrupted = corrupted[..., order][..., : bands.shape[2]].reshape(image.shape)
        if scaled:
            corrupted = corrupted * step + low
            if image.dtype.kind in 'iu':
                corrupted = np.rint(corrupted)
        return np.ascontiguousarray(corrupted, dtype=image.dtype)

    def seed(self, results: dict) -> int:
        """Seed in [0, 2**32) for an image, from its name, the corruption and the severity."""
        name = image_key(results)
        if results.get('img_path') is not None:
            name = os.path.basename(name)
        return seed_from(name, self.corruption, self.severity)

    def __repr__(self) -> str:
        kept = '' if self.cache is None else f', cache={self.cache!r}'
        return (
            f'{type(self).__name__}(corruption={self.corruption!r}, severity={self.severity}{kept})'
        )


def corrupt_image(image: np.ndarray, corruption: str, severity: int, seed: int) -> np.ndarray:
    """A corruption as a function of its arguments.

    Args:
        image: RGB, uint8 of shape (height, width, 3).
        corruption: Name of the corruption.
        severity: 1 to 5.
        seed: In [0, 2**32).

    Returns:
        Array like ``image``.
    """
    if corruption in FAMILIES['unseen']:
        return corrupt_unseen(image, corruption, severity, seed)
    library = _library('imagecorruptions')
    # Two corruptions do not draw from NumPy's global stream and would be different at each call.
    takes_seed = 'seed' in inspect.signature(library.corruption_dict[corruption]).parameters
    own_seed = dict(seed=seed) if takes_seed else {}
    # Where sizes do not divide, zoom_blur and snow print a line for each image.
    with _numpy_seed(seed), contextlib.redirect_stdout(io.StringIO()):
        return library.corrupt(image, severity=severity, corruption_name=corruption, **own_seed)


@contextlib.contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'Corrupt needs the package {name} ({error}): pip install mmfeataug[robustness]'
        ) from None
