# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Evaluate a checkpoint on clean and on corrupted images: mPC and rPC of every metric that the
config's evaluator returns, and mCE of classifiers."""

import argparse
import contextlib
import io
import json
import os.path as osp
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from common import (
    TEST,
    add_aux_bn_argument,
    add_common_arguments,
    build_runner,
    check_files,
    load_config,
    missing_data,
    start,
)
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.registry import init_default_scope
from rich.table import Table

from mmfeataug.evaluation import (
    SEVERITIES,
    conditions_of,
    evaluate_offline,
    main_metric,
    read_other_sets,
    read_reference,
    read_table,
    refuse_existing,
    rows,
    summary_line,
    summary_rows,
)
from mmfeataug.utils.configs import scope_of, set_workers, type_name
from mmfeataug.utils.results import print_table, results_on_stdout


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint file; stock ones and ours are alike. Not needed with --from-predictions',
    )
    parser.add_argument(
        '--corruptions',
        nargs='+',
        default=['benchmark'],
        metavar='NAME',
        help='corruptions, or groups of them: benchmark (the 15 of ImageNet-C, the default), '
        'noise, blur, weather, digital, extra (4 more), unseen (9 more, unlike most '
        'training augmentations), all',
    )
    parser.add_argument(
        '--severities', nargs='+', type=int, choices=SEVERITIES, default=list(SEVERITIES)
    )
    parser.add_argument(
        '--reference',
        metavar='JSON',
        help='robustness.json of the classifier that mCE is relative to',
    )
    parser.add_argument(
        '--cache',
        metavar='DIR',
        help='folder where corrupted images are kept: the first test fills it, later ones read it; '
        'the scores are the same',
    )
    parser.add_argument(
        '--also',
        action='append',
        default=[],
        metavar='NAME=CONFIG',
        help='another test set, with the evaluator of its config; may be there several times',
    )
    parser.add_argument(
        '--save-predictions',
        action='store_true',
        help='keep those of each condition in <out-dir>/predictions',
    )
    parser.add_argument(
        '--from-predictions',
        metavar='DIR',
        help='evaluate predictions that were kept, without the model',
    )
    parser.add_argument('--workers', type=int, help='processes that load images; as in the config')
    parser.add_argument('--out-dir', help='where tables go; <work directory>/robustness by default')
    parser.add_argument('--resume', action='store_true', help='go on with the table that is there')
    parser.add_argument('--json', action='store_true', help='print the table as JSON')
    add_aux_bn_argument(parser)
    add_common_arguments(parser)
    return parser.parse_args(argv)


def quiet(cfg: Config, workers: int | None) -> None:
    """Nothing but warnings, results or faults is shown, and no worker outlives its condition."""
    cfg.log_level = 'WARNING'
    if cfg.get('visualizer'):
        cfg.visualizer.vis_backends = []
    # Fastest kernels are chosen by timing them: a resumed run could choose others.
    cfg.setdefault('env_cfg', {})['cudnn_benchmark'] = False
    loader = cfg.test_dataloader
    set_workers(loader, loader.get('num_workers', 0) if workers is None else workers)


@contextlib.contextmanager
def silence():
    """Evaluators and other code print and warn for every condition; our own warnings stay."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        warnings.filterwarnings('default', module=r'mmfeataug\.')
        yield


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


def check(args: argparse.Namespace) -> dict[str, str]:
    """Other test sets of the command line, names to configs.

    Raises:
        SystemExit: Naming the argument that cannot be.
    """
    files = [args.reference]
    if not args.from_predictions:
        if args.checkpoint is None:
            raise SystemExit('give a checkpoint, or --from-predictions')
        files.append(args.checkpoint)
    elif (
        args.cache
        or args.save_predictions
        or args.aux_bn
        or args.workers is not None
        or args.launcher != 'none'
    ):
        raise SystemExit(
            '--from-predictions runs no model: leave out --cache, --save-predictions, --aux-bn, '
            '--workers and --launcher'
        )
    check_files(*files)
    pairs = [pair.partition('=') for pair in args.also]
    also = {name: path for name, _, path in pairs}
    if len(also) < len(pairs) or not all(map(all, pairs)):
        raise SystemExit(f'--also {" ".join(args.also)}: give NAME=CONFIG, and each name once')
    return also


@results_on_stdout
def main(out: TextIO, argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    also = check(args)
    cfg = load_config(args, TEST)
    for name, other in read_other_sets(also).items():
        if fault := missing_data(other.cfg, ('test_dataloader',)):
            raise SystemExit(f'--also {name}: {fault}')
    # The Runner's logs too: it would write its config over the one beside the checkpoints.
    folder = cfg.work_dir = args.out_dir or osp.join(cfg.work_dir, 'robustness')
    quiet(cfg, args.workers)
    name = 'CorruptionTestLoop'
    if type_name(cfg.test_cfg) == name:
        # What the config asks of it, the command line says here.
        cfg.test_cfg = cfg.test_cfg.get('loop') or {}
    names = ('corruptions', 'severities', 'reference', 'resume')
    options = dict({name: getattr(args, name) for name in names}, also=also, out_dir=folder)
    if args.from_predictions:
        init_default_scope(scope_of(cfg) or 'mmengine')
        with silence():
            evaluate_offline(args.from_predictions, cfg, checkpoint=args.checkpoint, **options)
    else:
        # Before the Runner writes anything.
        refuse_existing(folder, args.resume)
        wanted = conditions_of(args.corruptions, args.severities)
        if args.reference:
            read_reference(args.reference, wanted)
        cfg.load_from, cfg.resume = args.checkpoint, False
        options |= dict(cache=args.cache, save_predictions=args.save_predictions)
        cfg.test_cfg = dict(type=f'mmfeataug.{name}', loop=cfg.test_cfg, **options)
        runner = build_runner(cfg)
        with silence():
            runner.test()
    if is_main_process():
        table = read_table(osp.join(folder, 'robustness.json'))
        if args.json:
            print(json.dumps(table, allow_nan=False), file=out)
        else:
            show(table, out)
        minutes = f'{table["seconds"] / 60:.1f} minutes. Tables: {folder}'
        print(minutes, file=sys.stderr if args.json else out)


if __name__ == '__main__':
    start(main)
