# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The main job in a few minutes on a CPU: a pre-trained Faster R-CNN and a pre-trained DeepLabV3+,
fine-tuned on drawn scenes with and without the block that the comparison supports. Prints mAP and
mIoU, clean and corrupted, and writes a report with pictures."""

import argparse
import contextlib
import io
import json
import logging
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import torch
from analysis_tools.report import main as report
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from model_converters.efficientnet_lite0 import write_weights
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from test_robustness import main as test_robustness

from mmfeataug.datasets import make_demo_data
from mmfeataug.evaluation import read_table
from mmfeataug.utils.progress import progress_bar
from mmfeataug.utils.results import print_table, results_on_stdout

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'demo'
DATA = Path('data/demo')  # where the demo configs look
WEIGHTS = Path('work_dirs/enet-lite0.pth')
# Pipeline and method, and the config: what the comparison supports for each task.
TRAINED = {
    ('Faster R-CNN', 'baseline'): 'faster-rcnn_enet-lite0_fpn_demo-voc',
    ('Faster R-CNN', 'recommended'): 'recommended_faster-rcnn_enet-lite0_fpn_demo-voc',
    ('DeepLabV3+', 'baseline'): 'deeplabv3plus_enet-lite0_demo-cityscapes',
    ('DeepLabV3+', 'distort-images'): 'distort-images_deeplabv3plus_enet-lite0_demo-cityscapes',
}
# One of each family; the blocks train near the first two.
CORRUPTIONS = ('gaussian_noise', 'defocus_blur', 'fog', 'jpeg_compression')
SEVERITIES = ('1', '3', '5')
# Of a pipeline: the metric as printed, its key, and what makes it percent.
METRICS = {
    'Faster R-CNN': ('VOC mAP50', 'pascal_voc/AP50', 100),
    'DeepLabV3+': ('Cityscapes mIoU', 'mIoU', 1),
}


class ProgressHook(Hook):
    """Moves a bar along with the run."""

    priority = 'LOWEST'

    def __init__(self, progress: Progress, label: str) -> None:
        self.progress, self.label = progress, label
        self.task = progress.add_task(label, total=None)

    def before_train(self, runner: Runner) -> None:
        self.progress.update(self.task, total=runner.max_iters)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        text = f'{self.label} loss {outputs["loss"]:.2f}'
        self.progress.update(self.task, advance=1, description=text)

    def after_train(self, runner: Runner) -> None:
        self.progress.update(self.task, description=self.label)


def train(name: str, work_dir: Path, seed: int, progress: Progress, label: str) -> None:
    """Train one config and keep its log, for curves."""
    cfg = Config.fromfile(CONFIGS / name)
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=seed)
    cfg.log_level = 'ERROR'
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=4)
    # Runners built within one second would share a name, and with it their default scope; those
    # whose visualizer has one name would share its folder.
    cfg.experiment_name = cfg.visualizer.name = f'{work_dir.name}-{time.monotonic_ns()}'
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.train_cfg.val_interval = 10**9
    cfg.default_hooks.checkpoint.update(interval=-1, save_last=True)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(ProgressHook(progress, label))
    runner.train()


def train_all(out: Path, seed: int) -> dict[tuple[str, str], Path]:
    """Folders of the runs by pipeline and method."""
    folders = {}
    with progress_bar(42, redirect_stdout=False, redirect_stderr=False) as progress:
        for (pipeline, method), name in TRAINED.items():
            folder = out / name
            # Of an earlier demo: its figures would be taken for this one's.
            shutil.rmtree(folder, ignore_errors=True)
            train(f'{name}.py', folder, seed, progress, f'train {pipeline}, {method}')
            folders[pipeline, method] = folder
    return folders


def evaluate_all(folders: dict[tuple[str, str], Path], console: Console) -> Iterator[dict]:
    """The row of each run: its scores in percent."""
    for (pipeline, method), folder in folders.items():
        metric, key, percent = METRICS[pipeline]
        console.print(f'evaluate {metric}, {method}')
        out = folder / 'robustness'
        checkpoint = (folder / 'last_checkpoint').read_text()
        options = ['--workers', '0', '--out-dir', str(out)]
        options += ['--corruptions', *CORRUPTIONS, '--severities', *SEVERITIES]
        test_robustness([str(CONFIGS / f'{folder.name}.py'), checkpoint, *options])
        summary = read_table(out / 'robustness.json')['summary'][key]
        values = dict(clean=summary['P'], **summary['families'], mPC=summary['mPC'])
        yield dict(metric=metric, method=method, **{k: percent * v for k, v in values.items()})


@results_on_stdout
def main(out: TextIO) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', action='store_true', help='the table as JSON')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    console, start = Console(width=110, stderr=True), time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    write_weights(WEIGHTS)
    make_demo_data(DATA, val=16, layouts=('voc', 'cityscapes'))

    with contextlib.redirect_stdout(io.StringIO()):
        folders = train_all(args.out, args.seed)
        results = list(evaluate_all(folders, console))
        runs = [f'{method}={folder}' for (_, method), folder in folders.items()]
        report([*runs, '--out', str(args.out), '--title', 'mmfeataug: the demo'])
    severities = ', '.join(SEVERITIES)
    title = f'Drawn scenes, one seed, in percent; corrupted: means over severities {severities}'
    table = Table(*results[0], title=title)
    for row in results:
        table.add_row(*(v if isinstance(v, str) else f'{v:.1f}' for v in row.values()))
    print_table(table, out, args.json)
    (args.out / 'results.json').write_text(json.dumps(results, indent=2))
    console.print(f'{(time.monotonic() - start) / 60:.1f} minutes')
    print((args.out / 'report.html').resolve(), file=sys.stderr if args.json else out)


if __name__ == '__main__':
    torch.manual_seed(0)
    main()
