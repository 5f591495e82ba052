# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Predictions of runs on the same images: conditions in rows, runs in columns."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from .predictions import render_prediction

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

Rendered = dict[tuple[str, str], tuple['np.ndarray', 'np.ndarray']]
"""Ground truth and prediction by run and condition."""


def spread_indices(cfg: Config, count: int) -> list[int]:
    """Numbers of test images at equal distances: neighbours are often alike, as in a video.

    Args:
        cfg: Config with a test data loader.
        count: How many.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    total = len(DATASETS.build(cfg.test_dataloader.dataset))
    count = min(count, total)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def render_examples(
    configs: Mapping[str, Mapping[str, Config]],
    checkpoints: Mapping[str, str],
    index: int,
    tick: Callable[[], Any] = lambda: None,
) -> tuple[Rendered, dict[str, Exception]]:
    """What each run sees in one test image under each condition.

    Args:
        configs: Config by run and condition.
        checkpoints: File by run.
        index: Which test image.
        tick: Called after each picture.

    Returns:
        The pictures, and what went wrong by run; such a run has no pictures.
    """
    rendered: Rendered = {}
    failed: dict[str, Exception] = {}
    for name, by_condition in configs.items():
        pictures = {}
        for condition, cfg in by_condition.items():
            try:
                pictures[name, condition] = render_prediction(cfg, checkpoints[name], index)
            except Exception as error:  # Models, data and checkpoints of users: anything.
                failed[name] = error
                break
            tick()
        else:
            rendered |= pictures
    return rendered, failed


def draw_examples(rendered: Rendered, names: Sequence[str], conditions: Sequence[str]) -> 'Figure':
    """A grid: ground truth and one column for each run, one row for each condition.

    Args:
        rendered: Of :func:`render_examples`.
        names: Of the columns, those that were rendered.
        conditions: Of the rows.
    """
    from matplotlib.figure import Figure

    height, width = rendered[names[0], conditions[0]][0].shape[:2]
    size = 2.9
    figure = Figure(
        figsize=(size * (len(names) + 1), size * height / width * len(conditions) + 0.25),
        layout='constrained',
    )
    grid = figure.subplots(len(conditions), len(names) + 1, squeeze=False)
    for row, (line, condition) in enumerate(zip(grid, conditions, strict=True)):
        truth = rendered[names[0], condition][0]
        pictures = [truth, *(rendered[name, condition][1] for name in names)]
        for axes, title, picture in zip(line, ['ground truth', *names], pictures, strict=True):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(title, fontsize=9)
        line[0].set_ylabel(condition, fontsize=9)
    return figure
