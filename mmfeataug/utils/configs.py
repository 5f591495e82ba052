# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What a config says, whether its types are names, or classes as in pure-Python configs."""

from collections.abc import Iterator, Mapping
from typing import Any

from .tasks import TASKS, packages_of


def type_name(part: Mapping[str, Any]) -> str:
    """Name of the ``type`` of a part of a config, without packages; empty where it has none.

    Args:
        part: Its type may be ``'Resize'``, ``'mmdet.Resize'``, ``'mmdet.datasets.Resize'`` or the
            class.
    """
    kind = part.get('type') or ''
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def scope_of(cfg: Mapping[str, Any]) -> str | None:
    """``default_scope`` of a config. Where it has none, as pure-Python ones: the package of
    OpenMMLab that its model comes from, or the first part of it that comes from one.
    """
    if cfg.get('default_scope'):
        return cfg['default_scope']
    kinds = (d.get(key) for d in dicts_in(cfg.get('model')) for key in ('type', 'of'))
    packages = (package for kind in kinds if kind for package in packages_of(kind))
    return next((package for package in packages if package in TASKS), None)


def data_sets(dataset: Any, path: str = '') -> dict[str, Any]:
    """Configs of a data set, or of those it wraps (RepeatDataset, ConcatDataset), by their path in
    the config.
    """
    if not dataset:
        return {}
    wrapped = {f'{path}.datasets.{i}': d for i, d in enumerate(dataset.get('datasets') or ())}
    if dataset.get('dataset'):
        wrapped[f'{path}.dataset'] = dataset['dataset']
    if not wrapped:
        return {path: dataset}
    return {
        key: d for where, inner in wrapped.items() for key, d in data_sets(inner, where).items()
    }


WORKERS = ('persistent_workers', 'prefetch_factor', 'multiprocessing_context')
"""Settings of a data loader that PyTorch refuses without worker processes."""


def set_workers(loader: Any, workers: int = 0) -> None:
    """Change the number of processes of a data loader's config; none of them outlives an epoch.

    Args:
        loader: Changed in place.
        workers: 0: this process loads the data.
    """
    loader['num_workers'] = workers
    loader.pop('persistent_workers', None)
    if not workers:
        for key in WORKERS:
            loader.pop(key, None)


def dicts_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """All dicts within, outermost first."""
    level = [value]
    while level:
        found = [v for v in level if isinstance(v, Mapping)]
        yield from found
        lists = (v for v in level if isinstance(v, (list, tuple)))
        level = [inner for d in found for inner in d.values()]
        level += [inner for one in lists for inner in one]
