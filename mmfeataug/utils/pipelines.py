# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Data sets within data sets, and the steps of their pipelines."""

from collections.abc import Iterable, Iterator
from typing import Any


def leaves(dataset: Any) -> Iterator[Any]:
    """The data sets that another one joins or wraps, or itself."""
    if hasattr(dataset, 'datasets'):
        for inner in dataset.datasets:
            yield from leaves(inner)
    elif hasattr(dataset, 'dataset'):
        yield from leaves(dataset.dataset)
    else:
        yield dataset


def steps(dataset: Any) -> Iterator[Any]:
    """The steps of all pipelines of a data set, also of those that wrap it."""
    pipeline = getattr(dataset, 'pipeline', ())
    # That of mmdet's MultiImageMixDataset is a list, of data sets of users it may be a function.
    found = getattr(pipeline, 'transforms', pipeline)
    yield from found if isinstance(found, Iterable) else ()
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for each in inner:
        if each is not None:
            yield from steps(each)
