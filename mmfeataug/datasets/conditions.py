# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corruptions in the pipelines of a data loader's config."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmfeataug.utils.configs import data_sets, type_name
from mmfeataug.utils.tasks import packages_of

LOADS = re.compile('Load.*Image').search
"""Whether the type of a step is of those that load an image."""


def corrupt_images(
    loader: Mapping[str, Any],
    scope: str | None,
    corruption: str,
    severity: int,
    cache: str | None = None,
) -> None:
    """Insert a corruption after the loading of images, in every data set of a dataloader's config.

    Args:
        loader: Changed in place.
        scope: Package that the config is of, such as ``'mmdet'``.
        corruption: Name of the corruption.
        severity: 1 to 5.
        cache: Folder where corrupted images are kept, as of ``Corrupt``.

    Raises:
        ValueError: If a pipeline loads no image, or two.
    """
    step = dict(type='mmfeataug.Corrupt', corruption=corruption, severity=severity)
    if cache is not None:
        step['cache'] = str(cache)
    for dataset, place, rgb in behind_loading(loader, scope):
        # A list of its own: data sets may share one.
        pipeline = dataset.get('pipeline') or []
        own = dict(step, rgb=True) if rgb else step
        dataset['pipeline'] = [*pipeline[:place], own, *pipeline[place:]]


def behind_loading(
    loader: Mapping[str, Any], scope: str | None
) -> Iterator[tuple[dict[str, Any], int, bool]]:
    """Where images have been loaded: each data set's config, place in its pipeline, and whether
    the image is RGB there.

    Raises:
        ValueError: If a pipeline loads no image, or two.
    """
    for dataset in data_sets(loader.get('dataset')).values():
        pipeline = dataset.get('pipeline') or []
        loads = [i for i, step in enumerate(pipeline) if LOADS(type_name(step))]
        if loads and 'Multiple' in type_name(pipeline[loads[0]]):
            raise ValueError(
                f'{type_name(pipeline[loads[0]])} of {type_name(dataset)} loads two images for '
                'each sample: corruptions are for data sets with one'
            )
        if loads:
            yield dataset, loads[0] + 1, False
        elif 'mmpretrain' in (scope, *packages_of(dataset.get('type'))):
            # Sets like CIFAR bring their images along, in RGB.
            yield dataset, 0, True
        else:
            raise ValueError(
                f'the pipeline of {type_name(dataset)} in the test dataloader has no step named '
                'Load...Image... to put a corruption behind: add one, or rename yours'
            )
