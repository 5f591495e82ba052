# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Predictions side by side: conditions in rows, models in columns."""

import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import mmcv
import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner

from mmfeataug.evaluation import CheckpointCheck, Geometry, Region, region_of
from mmfeataug.utils.configs import set_workers
from mmfeataug.utils.pipelines import steps
from mmfeataug.utils.pixels import learn_pipeline

from .record import shown

Rendered = Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]
"""Ground truth and prediction by model and condition."""
LEAST = 224
"""Pixels of the shorter side of a picture that a class is written on, at least."""


class Painter:
    """Draws the predictions of a checkpoint on test images, with the framework's own visualizer.

    Args:
        cfg: Config of a detector, segmentor or classifier, with a visualizer.
        checkpoint: File to load.

    Raises:
        ValueError: Without a visualizer, or if the checkpoint has nothing of the model.
    """

    def __init__(self, cfg: Config, checkpoint: str) -> None:
        if not cfg.get('visualizer'):
            raise ValueError(
                'the config has no visualizer, which draws predictions: add '
                "visualizer=dict(type='DetLocalVisualizer'), or that of your framework"
            )
        cfg = copy.deepcopy(cfg)
        cfg.load_from, cfg.resume, cfg.launcher = str(checkpoint), False, 'none'
        cfg.log_level, cfg.visualizer.vis_backends = 'ERROR', []
        # What is for training only, and what may not be loaded in its place.
        cfg.custom_hooks = []
        cfg.experiment_name = f'painter-{time.monotonic_ns()}'
        # Its own visualizer: a global one remembers the data set of an earlier run.
        cfg.visualizer.name = cfg.experiment_name
        with tempfile.TemporaryDirectory() as cfg.work_dir:
            self._runner = Runner.from_cfg(cfg)
            self._runner.register_hook(CheckpointCheck())
            self._runner.load_or_resume()

    def __call__(
        self, loader: Mapping[str, Any], indices: Sequence[int]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ground truth and prediction for each image, painted on the image as the model gets it, in
        the file's size, for a classifier with room for a line; RGB, ``(H, W, 3)`` uint8.

        Args:
            loader: Config of a test data loader.
            indices: Which of its images.
        """
        alone = {**copy.deepcopy(dict(loader)), 'batch_size': 1}
        set_workers(alone)
        built = self._runner.build_dataloader(alone)
        model, visualizer = self._runner.model.eval(), self._runner.visualizer
        visualizer.dataset_meta = built.dataset.metainfo
        # Steps of data sets that others wrap are in there too.
        learn_pipeline(model, steps(built.dataset))
        show = shown(model, [str(loader['dataset'])])
        painted, geometry = [], Geometry(built.dataset)
        for index in indices:
            data = built.collate_fn([built.dataset[index]])
            with torch.no_grad():
                sample = model.test_step(data)[0].cpu()
            image = show(model.data_preprocessor(data)['inputs'])[0].clip(0, 255).round()
            image = image.astype(np.uint8)
            if 'pred_label' in sample:
                paint = partial(visualizer.visualize_cls, resize=max(LEAST, min(image.shape[:2])))
            else:
                image = _file(image, sample, geometry.region(sample) or region_of(sample))
                paint = partial(visualizer.add_datasample, 'picture')
            pictures = []
            for what in (dict(draw_gt=True, draw_pred=False), dict(draw_gt=False, draw_pred=True)):
                paint(image, sample, **what)
                pictures.append(np.asarray(visualizer.get_image()))
            painted.append((pictures[0], pictures[1]))
        return painted


def _file(image: np.ndarray, sample: Any, region: Region) -> np.ndarray:
    """In the size of the file, which predictions and labels are in, whatever the pipeline made of
    it.
    """
    height, width = sample.ori_shape[:2]
    image = image[region.top : region.bottom, region.left : region.right]
    return mmcv.imresize(np.ascontiguousarray(image), (width, height))


def spread_indices(cfg: Config, count: int) -> list[int]:
    """Indices of test images at equal distances, because neighbours are often similar (videos).

    Args:
        cfg: Config with a test data loader.
        count: How many.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    total = len(DATASETS.build(cfg.test_dataloader.dataset))
    count = min(count, total)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def render_predictions(
    configs: Mapping[str, Config],
    checkpoints: Mapping[str, str],
    loaders: Mapping[str, Mapping[str, Mapping[str, Any]]],
    indices: Sequence[int],
    tick: Callable[[], Any] = lambda: None,
) -> tuple[dict[int, Rendered], dict[str, Exception]]:
    """Draw predictions of each model on some test images under each condition.

    Args:
        configs: By model.
        checkpoints: File by model.
        loaders: Configs of test data loaders, by model and condition.
        indices: Which test images.
        tick: Called after the images of a model and condition.

    Returns:
        The pictures by image, and what went wrong by model; such a model has no pictures.
    """
    rendered: dict[int, dict] = {index: {} for index in indices}
    failed: dict[str, Exception] = {}
    for name, cfg in configs.items():
        try:
            paint = Painter(cfg, checkpoints[name])
            painted = {}
            for condition, loader in loaders[name].items():
                painted[condition] = paint(loader, indices)
                tick()
        except Exception as error:  # Models, data and checkpoints of users: anything.
            failed[name] = error
            continue
        for condition, pictures in painted.items():
            for index, pair in zip(indices, pictures, strict=True):
                rendered[index][name, condition] = pair
    return dict(rendered), failed


def draw_predictions(rendered: Rendered) -> Figure:
    """Draw a grid: ground truth and one column for each model, one row for each condition.

    Args:
        rendered: Of one image, with all conditions for each model.
    """
    names = list(dict.fromkeys(name for name, _ in rendered))
    conditions = list(dict.fromkeys(condition for _, condition in rendered))
    height, width = next(iter(rendered.values()))[0].shape[:2]
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
