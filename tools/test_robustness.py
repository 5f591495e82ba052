# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Evaluate a checkpoint on clean and on corrupted images: mPC and rPC of every metric that the
config's evaluator returns, and mCE of classifiers."""

import argparse
import contextlib
import copy
import io
import itertools
import json
import os.path as osp
import sys
import time
import warnings
from collections.abc import Sequence
from typing import TextIO

import numpy as np
import torch
from common import (
    TEST,
    add_aux_bn_argument,
    add_common_arguments,
    build_runner,
    close_processes,
    corrupt_images,
    load_config,
    start,
)
from mmengine.config import Config
from mmengine.dist import all_reduce, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from rich.progress import Progress
from rich.table import Table

from mmfeataug.datasets import Corrupt, corrupt_image
from mmfeataug.evaluation import (
    ANEW,
    CLEAN,
    JSON,
    SEVERITIES,
    check_metrics,
    complete,
    count_found,
    fingerprint,
    is_done,
    label,
    main_metric,
    read_earlier,
    read_reference,
    read_scores,
    rows,
    select_corruptions,
    summary_line,
    summary_rows,
    write_table,
)
from mmfeataug.utils.configs import scope_of, set_workers
from mmfeataug.utils.progress import progress_bar
from mmfeataug.utils.results import print_table, results_on_stdout
from mmfeataug.utils.tasks import task_of


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file; stock ones and ours are alike')
    parser.add_argument(
        '--corruptions',
        nargs='+',
        default=['benchmark'],
        metavar='NAME',
        help='corruptions, or groups of them: benchmark (the 15 of ImageNet-C, the default), '
        'noise, blur, weather, digital, extra (4 more), unseen (10 that no training here comes '
        'near), all',
    )
    parser.add_argument(
        '--severities', nargs='+', type=int, choices=SEVERITIES, default=list(SEVERITIES)
    )
    parser.add_argument(
        '--reference',
        metavar='JSON',
        help='robustness.json of the classifier that mCE is relative to',
    )
    parser.add_argument('--workers', type=int, help='processes that load images; as in the config')
    parser.add_argument('--out-dir', help='where tables go; <work directory>/robustness by default')
    parser.add_argument('--resume', action='store_true', help='go on with the table that is there')
    parser.add_argument('--json', action='store_true', help='print the table as JSON')
    add_aux_bn_argument(parser)
    add_common_arguments(parser)
    return parser.parse_args(argv)


class Watch(Hook):
    """Moves the bar along and counts what the model finds."""

    priority = 'LOWEST'

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.done = progress, 0
        self.bar = progress.add_task('', total=total)

    def begin(self, condition: tuple[str, int]) -> None:
        self.batches = self.found = 0
        self.progress.update(self.bar, description=label(condition))

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.batches += 1
        self.found += count_found(outputs)
        part = self.batches / len(runner.test_dataloader)
        self.progress.update(self.bar, completed=self.done + part)

    def end(self) -> None:
        self.done += 1
        self.progress.update(self.bar, completed=self.done)


def quiet(cfg: Config, workers: int | None) -> None:
    """Nothing but warnings, results or faults is shown, and no worker outlives its condition."""
    cfg.log_level = 'WARNING'
    if cfg.get('visualizer'):
        cfg.visualizer.vis_backends = []
    # Fastest kernels are chosen by timing them: a resumed run could choose others.
    cfg.setdefault('env_cfg', {})['cudnn_benchmark'] = False
    loader = cfg.test_dataloader
    set_workers(loader, loader.get('num_workers', 0) if workers is None else workers)


def evaluate(runner: Runner, condition: tuple[str, int], watch: Watch, made_with: dict) -> dict:
    """What the evaluator returns under a condition."""
    cfg = runner.cfg
    runner._test_dataloader = loader = copy.deepcopy(cfg.test_dataloader)
    if condition != CLEAN:
        corrupt_images(loader, scope_of(cfg), *condition)
        # Workers inherit what the library compiles at its first call.
        corrupt_image(np.zeros((32, 32, 3), np.uint8), *condition, seed=0)
    runner._test_evaluator = copy.deepcopy(cfg.test_evaluator)
    watch.begin(condition)
    runner._test_loop = loop = runner.build_test_loop(cfg.test_cfg)
    images = len(loop.dataloader.dataset)
    if made_with.setdefault('images', images) != images:
        raise SystemExit(
            f'--resume: the table was made with {made_with["images"]} images, now there are '
            f'{images}. {ANEW}'
        )
    try:
        metrics = loop.run()
    except Exception as error:
        explain(error, loop, condition, watch.batches)
        raise RuntimeError(f'{label(condition)}: {type(error).__name__}: {error}') from error
    watch.end()
    return metrics


def explain(error: Exception, loop, condition: tuple[str, int], batches: int) -> None:
    """Raise SystemExit with the name of the file, if it is one of the next batch's that fails."""
    dataset = loop.dataloader.dataset
    batch = next(itertools.islice(loop.dataloader.batch_sampler, batches, None), ())
    for index in batch:
        try:
            dataset[index]
        except Exception as cause:
            info = dataset.get_data_info(index) if hasattr(dataset, 'get_data_info') else {}
            path = info.get('img_path') or f'image {index}'
            raise SystemExit(
                f'{label(condition)}: {path} cannot be used: {type(cause).__name__}: {cause}. '
                'Conditions that were done are kept: put the file right and go on with --resume; '
                'without it the data are others, and all conditions have to be repeated'
            ) from error


class Conditions(BaseLoop):
    """What ``runner.test()`` runs, once it has set up everything: a test for each condition that
    the table lacks. The table is saved after each.
    """

    def __init__(self, runner: Runner, table: dict, conditions: list, save, path: str) -> None:
        super().__init__(runner, [])
        self.table, self.save, self.path = table, save, path
        self.pending = [c for c in conditions if not is_done(table, c)]
        self.resumed = len(self.pending) < len(conditions)

    def run(self) -> None:
        table = self.table
        model = self.runner.model
        table['task'] = task_of(model.module if is_model_wrapper(model) else model)
        for condition in self.pending:
            start = time.monotonic()
            metrics = evaluate(self.runner, condition, self.watch, table['made_with'])
            found = torch.tensor(self.watch.found)
            all_reduce(found)
            clean = None if condition == CLEAN else table['clean']
            scores = read_scores(metrics, clean, table['task'], int(found))
            if self.resumed and condition == self.pending[0]:
                try:
                    check_metrics(scores, table, self.path)
                except ValueError as error:
                    raise SystemExit(f'--resume: {error}') from error
            name, severity = condition
            if condition == CLEAN:
                table['clean'] = scores
            else:
                table['corrupted'].setdefault(name, {})[str(severity)] = scores
            table['seconds'] = round(table['seconds'] + time.monotonic() - start, 3)
            self.save()


def run(cfg: Config, table: dict, conditions: list[tuple[str, int]], save, path: str) -> None:
    """Evaluate what the table lacks."""
    runner = build_runner(cfg)
    # What the first process found on its disk counts.
    shared = [table]
    broadcast_object_list(shared)
    table.update(shared[0])
    runner._test_loop = loop = Conditions(runner, table, conditions, save, path)
    bar = progress_bar(22, redirect_stdout=False, redirect_stderr=False, speed_estimate_period=1e9)
    with bar, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        loop.watch = Watch(bar, len(loop.pending))
        runner.register_hook(loop.watch)
        runner.test()


def show(table: dict, out: TextIO) -> None:
    if table['metrics']:
        metric = main_metric(table)
        parts = [('', summary_rows(table))]
        if table['corrupted']:
            parts.insert(0, (metric, rows(table, metric)))
        for title, (head, *body) in parts:
            grid = Table(title=title, title_justify='left')
            for i, name in enumerate(head):
                grid.add_column(name, justify='right' if i else 'left')
            for line in body:
                grid.add_row(*line)
            print_table(grid, out)
        print(f'{metric}: {summary_line(table, metric)}', file=out)
    for note in table['notes']:
        print(f'Note: {note}', file=out)


@results_on_stdout
def main(out: TextIO, argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        corruptions = select_corruptions(args.corruptions)
        for name in corruptions:
            Corrupt(name)
    except (ValueError, ImportError) as error:
        raise SystemExit(f'--corruptions: {error}') from error
    wanted = list(itertools.product(corruptions, sorted(set(args.severities))))
    if '://' not in args.checkpoint and not osp.isfile(args.checkpoint):
        raise SystemExit(f'checkpoint {args.checkpoint!r} is no file')
    try:
        reference = read_reference(args.reference, wanted) if args.reference else None
    except (OSError, ValueError) as error:
        raise SystemExit(f'--reference: {error}') from error
    cfg = load_config(args, TEST)
    table = dict(
        config=osp.splitext(osp.basename(args.config))[0],
        checkpoint=args.checkpoint,
        task=None,
        metrics=[],
        clean=None,
        corrupted={},
        summary={},
        mCE=None,
        seconds=0.0,
        notes=[],
        made_with=fingerprint(cfg, args.checkpoint),
    )
    # The Runner's logs too: it would write its config over the one beside the checkpoints.
    folder = cfg.work_dir = args.out_dir or osp.join(cfg.work_dir, 'robustness')
    path = osp.join(folder, JSON)
    if osp.exists(path):
        if not args.resume:
            raise SystemExit(
                f'{path} is there already: go on with it by --resume, delete it to start anew, or '
                'write elsewhere with --out-dir'
            )
        try:
            table = read_earlier(path, table['made_with'])
        except ValueError as error:
            raise SystemExit(f'--resume: {error}') from error
    cfg.load_from, cfg.resume = args.checkpoint, False
    quiet(cfg, args.workers)

    def save() -> None:
        table.update(complete(table, wanted, reference))
        if is_main_process():
            write_table(table, folder)

    conditions = [CLEAN, *wanted]
    # Processes that may see other disks have to ask the first one.
    if args.launcher != 'none' or not all(is_done(table, c) for c in conditions):
        run(cfg, table, conditions, save, path)
    save()
    if is_main_process():
        if args.json:
            print(json.dumps(table, allow_nan=False), file=out)
        else:
            show(table, out)
        minutes = f'{table["seconds"] / 60:.1f} minutes. Tables: {folder}'
        print(minutes, file=sys.stderr if args.json else out)
    close_processes()


if __name__ == '__main__':
    start(main)
