# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What a model is for."""

from typing import Any

TASKS = dict(mmdet='detection', mmseg='segmentation', mmpretrain='classification')
"""Of each package."""


def task_of(model: Any) -> str:
    """The task of the package that a model's class, or a base of it, comes from.

    Raises:
        TypeError: For a model of another package.
    """
    packages = [c.__module__.partition('.')[0] for c in type(model).__mro__]
    for package in packages:
        if package in TASKS:
            return TASKS[package]
    raise TypeError(
        f'{type(model).__name__} of {packages[0]}: need a detector, segmentor or classifier of '
        f'{", ".join(TASKS)}'
    )
