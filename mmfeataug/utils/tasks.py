# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What a model is for."""

from typing import Any

TASKS = dict(mmdet='detection', mmseg='segmentation', mmpretrain='classification')
"""Of each package."""


def packages_of(kind: Any) -> list[str]:
    """Top packages of a class and of its bases, or that of a dotted name."""
    if isinstance(kind, str):
        return [kind.partition('.')[0]]
    return [c.__module__.partition('.')[0] for c in getattr(kind, '__mro__', (kind,))]


def task_of(model: Any) -> str:
    """The task of the package that a model's class, or a base of it, comes from.

    Raises:
        TypeError: For a model of another package.
    """
    packages = packages_of(type(model))
    for package in packages:
        if package in TASKS:
            return TASKS[package]
    raise TypeError(
        f'{type(model).__name__} of {packages[0]}: need a detector, segmentor or classifier of '
        f'{", ".join(TASKS)}'
    )


def refuse_branches(model: Any, what: str, remedy: str) -> None:
    """Say what cannot be done with a loss of a dict of batches, as semi-supervised detectors have.

    Raises:
        TypeError: If the model has such a loss.
    """
    # Their data preprocessor holds another one.
    if hasattr(getattr(model, 'data_preprocessor', None), 'data_preprocessor'):
        raise TypeError(
            f'{type(model).__name__} takes a dict of branches (supervised and unsupervised images) '
            f'for its loss, and {what} one batch of images: {remedy}'
        )
