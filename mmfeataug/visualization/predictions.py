# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Predictions side by side: methods in columns, conditions in rows."""

import copy
import time
from collections.abc import Mapping
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmfeataug._checkpoints import declare_log_buffers


def render_prediction(
    cfg: Config, checkpoint: str, index: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw what a checkpoint sees in one test image, with the framework's own visualizer.

    Args:
        cfg: Config with a test data loader; detection or segmentation.
        checkpoint: File to load.
        index: Which test image.

    Returns:
        Ground truth and prediction, painted on the image as the model gets it, in the file's size;
        RGB, ``(H, W, 3)`` uint8.
    """
    declare_log_buffers()
    cfg = copy.deepcopy(cfg)
    cfg.load_from = str(checkpoint)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False, batch_size=1)
    cfg.experiment_name = f'render-{time.monotonic_ns()}'
    # Its own visualizer: a global one remembers the data set of an earlier run.
    cfg.visualizer.name = cfg.experiment_name
    runner = Runner.from_cfg(cfg)
    loader = runner.build_dataloader(cfg.test_dataloader)
    data = loader.collate_fn([loader.dataset[index]])
    runner.load_or_resume()
    runner.model.eval()
    with torch.no_grad():
        sample = runner.model.test_step(data)[0].cpu()
    image = data['inputs'][0].permute(1, 2, 0).numpy()
    # Predictions and labels are in the size of the file, whatever the pipeline made of it.
    image = mmcv.imresize(image, sample.ori_shape[::-1])
    if cfg.model.data_preprocessor.get('bgr_to_rgb'):
        image = image[..., ::-1]
    visualizer = runner.visualizer
    visualizer.dataset_meta = loader.dataset.metainfo
    pictures = []
    for what in (dict(draw_gt=True, draw_pred=False), dict(draw_gt=False, draw_pred=True)):
        visualizer.add_datasample('picture', np.ascontiguousarray(image), sample, **what)
        pictures.append(np.asarray(visualizer.get_image()))
    return pictures[0], pictures[1]


def draw_predictions(
    checkpoints: Mapping[str, Mapping[str, str]],
    configs: Mapping[str, Mapping[str, Config]],
    path: Path,
    index: int = 0,
) -> Path:
    """A grid of pictures: one row for each pipeline and condition; ground truth and one column for
    each method.

    Args:
        checkpoints: File by pipeline and method.
        configs: Config by pipeline and condition.
        path: PNG to write.
        index: Which test image.

    Returns:
        ``path``.
    """
    from matplotlib.figure import Figure

    rows = [(pipeline, condition) for pipeline in configs for condition in configs[pipeline]]
    methods = list(dict.fromkeys(m for by_method in checkpoints.values() for m in by_method))
    figure = Figure(figsize=(3.2 * (len(methods) + 1), 2.4 * len(rows)), layout='constrained')
    grid = figure.subplots(len(rows), len(methods) + 1, squeeze=False)
    for line, (pipeline, condition) in zip(grid, rows, strict=True):
        for axes, method in zip(line[1:], methods, strict=True):
            truth, picture = render_prediction(
                configs[pipeline][condition], checkpoints[pipeline][method], index
            )
            axes.imshow(picture)
            axes.set_title(method, fontsize=9)
        line[0].imshow(truth)
        line[0].set_title('ground truth', fontsize=9)
        line[0].set_ylabel(f'{pipeline}\n{condition}', fontsize=9)
        for axes in line:
            axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=130)
    return path
