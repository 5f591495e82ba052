# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Write corrupted copies of a test set, by several processes and with resume."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader, Dataset, Subset

from mmfeataug.utils.files import write_at_once
from mmfeataug.utils.progress import progress_bar

from .conditions import behind_loading
from .copies import MANIFEST, CorruptedCopies, checksum, encode, key_of, library_version, names_of
from .corrupt import Corrupt, corrupt_image


def make_corrupted(
    loader: Mapping[str, Any],
    scope: str | None,
    folder: str | Path,
    conditions: Sequence[tuple[str, int]],
    workers: int = 0,
) -> int:
    """Write the missing corrupted copies of a test set.

    Args:
        loader: Config of the test data loader; mmengine's default scope is set.
        scope: Package that the config is of, such as ``'mmdet'``.
        folder: Target; see :class:`CorruptedCopies`.
        conditions: Corruptions and severities.
        workers: Processes that load and corrupt; 0: this one.

    Returns:
        Number of files that were written.

    Raises:
        ValueError: If the folder has copies of another test set, of images that were loaded
            otherwise, or by another version of the library; or an image cannot be used.
    """
    written = 0
    with progress_bar(22, redirect_stdout=False) as progress:
        images = _images(loader, scope, lambda rgb: [_Look()])
        bar = progress.add_task('reading', total=len(images) * (1 + len(conditions)))
        looked = []
        for found in _each(images, workers):
            looked.append(found)
            progress.advance(bar)
        copies = _open(folder, looked)
        # All of them: two data sets may share images.
        names = names_of([key for key, _, _ in looked])
        types = [dtype for _, _, dtype in looked]
        for corruption, severity in conditions:
            progress.update(bar, description=f'{corruption} {severity}')
            pending = [
                index
                for index, (name, dtype) in enumerate(zip(names, types, strict=True))
                if not copies.path(name, corruption, severity, dtype).is_file()
            ]
            progress.advance(bar, len(names) - len(pending))
            if pending:
                # Workers inherit what the library compiles at its first call.
                corrupt_image(np.zeros((32, 32, 3), np.uint8), corruption, severity, seed=0)
                step = _Steps(copies, corruption, severity)
                images = _images(loader, scope, step)
                for _ in _each(Subset(images, pending), workers):
                    progress.advance(bar)
            written += len(pending)
            _complete(copies, corruption, severity)
    return written


def _open(folder: str | Path, looked: Sequence[tuple[tuple[str, ...], int, np.dtype]]) -> Any:
    """The folder's manifest, made if it is new.

    Raises:
        ValueError: If it is of other images, or nobody knows of which.
    """
    names = names_of([key for key, _, _ in looked])
    images: dict[str, int] = {}
    for name, (_, number, _) in zip(names, looked, strict=True):
        if images.setdefault(name, number) != number:
            raise ValueError(
                f'{name!r} is in the test set twice, as different images or loaded in two ways: '
                'make copies of one data set at a time'
            )
    if not Path(folder, MANIFEST).is_file():
        if any(Path(folder).glob('*/[1-5]/*')):
            raise ValueError(
                f'{folder} has corrupted images and no {MANIFEST}, which says what they were made '
                'of: delete them, or write to another folder by --out'
            )
        copies = CorruptedCopies(folder)
        copies.images, copies.library = images, library_version()
        copies.write()
        return copies
    copies = CorruptedCopies.read(folder)
    theirs = copies.images
    other = sorted(n for n in images | theirs if images.get(n) != theirs.get(n))
    if other:
        raise ValueError(
            f'{folder} has copies of another test set, or of images that were loaded otherwise: '
            f'{len(other)} differ ({", ".join(other[:3])}{", ..." if len(other) > 3 else ""}). '
            'Write to another folder by --out, or delete this one'
        )
    return copies


def _complete(copies: CorruptedCopies, corruption: str, severity: int) -> None:
    """Note a condition; another process may have noted others."""
    now = CorruptedCopies.read(copies.folder)
    done = {*now.conditions.get(corruption, ()), severity}
    now.conditions[corruption] = sorted(done)
    now.write()


class _Look:
    """The last step of a pipeline that looks at images."""

    def __call__(self, results: dict) -> tuple[tuple[str, ...], int, np.dtype]:
        image = results['img']
        return key_of(results), checksum(image), image.dtype


class _Steps:
    """Steps that corrupt an image and write it."""

    def __init__(self, copies: CorruptedCopies, corruption: str, severity: int) -> None:
        self.copies, self.condition = copies, (corruption, severity)

    def __call__(self, rgb: bool) -> list[Callable]:
        return [_Write(self.copies, Corrupt(*self.condition, rgb=rgb))]


class _Write:
    """The last step of a pipeline that writes corrupted images."""

    def __init__(self, copies: CorruptedCopies, corrupt: Corrupt) -> None:
        self.copies, self.corrupt = copies, corrupt

    def __call__(self, results: dict) -> bool:
        corrupt = self.corrupt
        name = self.copies.name(results)
        image = corrupt(results)['img']
        path = self.copies.path(name, corrupt.corruption, corrupt.severity, image.dtype)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Files show colours as they are.
        write_at_once(path, encode(image[..., ::-1] if corrupt.rgb else image))
        return True


class _Named(Dataset):
    """A data set that hands over a fault with the name of the image: a worker's exception would
    come with the worker's traceback in its message.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except Exception as error:
            info = self.dataset.get_data_info(index)
            path = info.get('img_path') or f'image {index}'
            return ValueError(f'{path} cannot be used: {type(error).__name__}: {error}')


def _images(loader: Mapping[str, Any], scope: str | None, steps: Callable[[bool], list]) -> _Named:
    """The data set with other steps behind the loading of images."""
    loader = copy.deepcopy(loader)
    for dataset, place, rgb in behind_loading(loader, scope):
        dataset['pipeline'] = [*(dataset.get('pipeline') or [])[:place], *steps(rgb)]
    built = DATASETS.build(loader['dataset'])
    if hasattr(built, 'full_init'):
        built.full_init()
    return _Named(built)


def _each(images: Dataset, workers: int) -> Iterator[Any]:
    """What the pipeline yields for each image, in order.

    Raises:
        ValueError: Naming the image that cannot be used.
    """
    loader: DataLoader = DataLoader(
        images,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_one_thread,
    )
    for result in loader:
        if isinstance(result, ValueError):
            raise result
        yield result


def _as_it_is(result: Any) -> Any:
    return result


def _one_thread(worker: int) -> None:
    """Each process has a core."""
    cv2.setNumThreads(0)
