# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The main job in a few minutes on a CPU: baseline and A-FAN, Faster R-CNN and DeepLabV3+, on drawn
scenes in VOC, COCO and Cityscapes layout. Prints mAP and mIoU, clean and corrupted, and writes
pictures."""

import argparse
import contextlib
import copy
import io
import itertools
import json
import logging
import sys
import time
import warnings
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mmfeataug.datasets import make_demo_data
from mmfeataug.visualization import draw_curves, draw_predictions

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'demo'
DATA = Path('data/demo')  # where the demo configs look
TRAINED = {
    'Faster R-CNN': 'faster-rcnn_r18_fpn_demo-voc.py',
    'DeepLabV3+': 'deeplabv3plus_r18_demo-cityscapes.py',
}
# Metric as printed: pipeline, config whose test set and evaluator are used, key of the result.
METRICS = {
    'VOC mAP50': ('Faster R-CNN', 'faster-rcnn_r18_fpn_demo-voc.py', 'pascal_voc/AP50', 100),
    'COCO mAP': ('Faster R-CNN', 'faster-rcnn_r18_fpn_demo-coco.py', 'coco/bbox_mAP', 100),
    'Cityscapes mIoU': ('DeepLabV3+', 'deeplabv3plus_r18_demo-cityscapes.py', 'mIoU', 1),
}
METHODS = {'baseline': '', 'A-FAN': 'afan_'}
CONDITIONS = {
    'clean': None,
    'gaussian_noise 2': ('gaussian_noise', 2),
    'defocus_blur 2': ('defocus_blur', 2),
}


class ProgressHook(Hook):
    """Moves a bar along with the run and keeps the loss curve."""

    priority = 'LOWEST'

    def __init__(self, progress: Progress, task: int) -> None:
        self.progress, self.task, self.losses = progress, task, []

    def before_train(self, runner: Runner) -> None:
        self.progress.update(self.task, total=runner.max_iters)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        # The clean terms alone, as stock weighs them, so that the curves of both methods mean the
        # same.
        factor = getattr(runner.model, 'loss', None)
        weight = factor.clean_weight if getattr(factor, 'active', False) else 1.0
        clean = [
            float(v)
            for k, v in outputs.items()
            if 'loss' in k and k != 'loss' and not k.startswith('afan')
        ]
        self.losses.append(sum(clean) / weight)
        self.progress.update(
            self.task, advance=1, description=f'{self.name} loss {outputs["loss"]:.2f}'
        )

    @property
    def name(self) -> str:
        return self.progress.tasks[self.task].fields['name']


def load(name: str, work_dir: Path, seed: int) -> Config:
    """A demo config, made quiet."""
    cfg = Config.fromfile(CONFIGS / name)
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=seed)
    cfg.log_level = 'ERROR'
    cfg.visualizer.vis_backends = []
    # A worker process for a few small images costs more than it saves.
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=10**9)
    # Runners built within one second would share a name, and with it their default scope.
    cfg.experiment_name = f'{work_dir.name}-{time.monotonic_ns()}'
    return cfg


def train(name: str, work_dir: Path, seed: int, progress: Progress, label: str) -> tuple[str, list]:
    """Train one config; returns the checkpoint and the curve of the clean loss."""
    cfg = load(name, work_dir, seed)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.train_cfg.val_interval = 10**9
    cfg.default_hooks.checkpoint.update(interval=-1, save_last=True)
    task = progress.add_task(label, name=label, total=None)
    hook = ProgressHook(progress, task)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(hook)
    runner.train()
    progress.update(task, description=label)
    return (work_dir / 'last_checkpoint').read_text(), hook.losses


def corrupted(cfg: Config, condition: tuple[str, int] | None) -> Config:
    """The config with its test images corrupted."""
    cfg = copy.deepcopy(cfg)
    if condition:
        name, severity = condition
        cfg.test_dataloader.dataset.pipeline.insert(
            1, dict(type='mmfeataug.Corrupt', corruption=name, severity=severity)
        )
    return cfg


def evaluate(metric: str, checkpoint: str, condition, work_dir: Path, seed: int) -> float:
    """The metric in percent."""
    _, name, key, factor = METRICS[metric]
    cfg = corrupted(load(name, work_dir / 'test', seed), condition)
    cfg.load_from = checkpoint
    return float(Runner.from_cfg(cfg).test()[key]) * factor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    console, start = Console(width=110, file=sys.stdout), time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    console.print(f'Drawing scenes into {DATA} ...')
    make_demo_data(DATA, val=16)

    # The frameworks print tables of their own; the console holds on to the real standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        checkpoints, curves = train_all(args, console)
        results = evaluate_all(args, console, checkpoints)
        pictures = draw_all(args, checkpoints, curves)
    table = Table(
        'metric',
        'method',
        *CONDITIONS,
        title='Drawn scenes, trained from scratch, one seed, in percent',
    )
    for metric in METRICS:
        for method in METHODS:
            values = (f'{results[metric, method, c]:.1f}' for c in CONDITIONS)
            table.add_row(metric, method, *values)
    console.print(table)
    rows = [dict(metric=m, method=a, condition=c, value=v) for (m, a, c), v in results.items()]
    (args.out / 'results.json').write_text(json.dumps(rows, indent=2))
    minutes = (time.monotonic() - start) / 60
    console.print(f'{minutes:.1f} minutes. Pictures: {", ".join(map(str, pictures))}')


def bars(console: Console) -> Progress:
    """Progress bars that leave standard output alone."""
    columns = (
        TextColumn('{task.description:42}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False)


def train_all(args: argparse.Namespace, console: Console) -> tuple[dict, dict]:
    """Checkpoints and loss curves by pipeline and method."""
    checkpoints, curves = {}, {}
    with bars(console) as progress:
        for pipeline, name in TRAINED.items():
            for method, prefix in METHODS.items():
                work_dir = args.out / f'{prefix}{Path(name).stem}'
                label = f'train {pipeline}, {method}'
                checkpoints[pipeline, method], curves[pipeline, method] = train(
                    prefix + name, work_dir, args.seed, progress, label
                )
    return checkpoints, curves


def evaluate_all(args: argparse.Namespace, console: Console, checkpoints: dict) -> dict:
    """Percent by metric, method and condition."""
    cases = list(itertools.product(METRICS, METHODS, CONDITIONS))
    results = {}
    with bars(console) as progress:
        for metric, method, condition in progress.track(cases, description='evaluate'):
            checkpoint = checkpoints[METRICS[metric][0], method]
            results[metric, method, condition] = evaluate(
                metric, checkpoint, CONDITIONS[condition], args.out, args.seed
            )
    return results


def draw_all(args: argparse.Namespace, checkpoints: dict, curves: dict) -> list[Path]:
    """Loss curves, and what each model sees."""
    by_pipeline = {p: {m: checkpoints[p, m] for m in METHODS} for p in TRAINED}
    configs = {
        pipeline: {
            label: corrupted(load(name, args.out / 'test', args.seed), condition)
            for label, condition in CONDITIONS.items()
        }
        for pipeline, name in TRAINED.items()
    }
    return [
        draw_curves(curves, args.out / 'loss_curves.png'),
        draw_predictions(by_pipeline, configs, args.out / 'predictions.png'),
    ]


if __name__ == '__main__':
    torch.manual_seed(0)
    main()
