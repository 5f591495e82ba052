# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What does a training step of a config cost beside the stock step? Trains a few iterations, by
turns a stock step, one without views and one in which all acts, and writes the ratio to <work
directory>/cost.json, where the report finds it. Methods that act by chance (prob) act in each of
these, and their prob is multiplied in; if they differ in it, the largest, so that the figure is a
bound. Times are those of this machine, at PyTorch's number of threads; data loading is left out.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process

from mmfeataug.hooks import CostHook, Schedule
from mmfeataug.utils.configs import type_name
from mmfeataug.utils.files import write_at_once
from mmfeataug.utils.loaders import epoch_length
from mmfeataug.utils.progress import progress_bar
from mmfeataug.utils.results import results_on_stdout

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import TRAIN, add_common_arguments, build_runner, load_config, only_train, start

SCHEDULE = ('budget', *(field.name for field in fields(Schedule)))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a training')
    parser.add_argument('--rounds', type=int, default=8, help='steps of each kind to time')
    parser.add_argument('--json', action='store_true', help='print cost.json')
    add_common_arguments(parser)
    return parser.parse_args(argv)


def only_measure(cfg: Config, hook: CostHook, folder: str) -> dict[str, Any]:
    """Turn a config into one that measures.

    Returns:
        The schedule that its FeatureAugHook had.
    """
    schedule: dict[str, Any] = {}
    for one in cfg.get('custom_hooks') or ():
        if type_name(one) == 'FeatureAugHook':
            schedule |= {key: one.pop(key) for key in SCHEDULE if key in one}
        if type_name(one) == 'EMAHook':
            # These few iterations are before its start; averaging is part of a step behind it.
            for key in ('begin_epoch', 'begin_iter'):
                one.pop(key, None)
    only_train(cfg, folder)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=hook.iterations, val_interval=10**9)
    # Every step is one of the optimizer.
    cfg.optim_wrapper.pop('accumulative_counts', None)
    return schedule


@results_on_stdout
def main(out: TextIO, argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        hook = CostHook(args.rounds)
    except ValueError as error:
        raise SystemExit(f'--rounds: {error}') from error
    cfg = load_config(args, TRAIN)
    train, path = cfg.train_cfg, Path(cfg.work_dir, 'cost.json')
    with tempfile.TemporaryDirectory() as folder, progress_bar() as progress:
        schedule = only_measure(cfg, hook, folder)
        runner = build_runner(cfg)
        runner.register_hook(hook)
        bar = progress.add_task('steps', total=hook.iterations)
        hook.advance = lambda: progress.advance(bar)
        runner.train()
    epoch = epoch_length(runner.train_dataloader)
    iterations = train.get('max_iters') or train.get('max_epochs', 1) * epoch
    when, planned = (iterations, epoch), Schedule.of(schedule)
    # Of methods that act by different chances, the part of each is not known.
    prob, share = max(hook.probs, default=1.0), planned.share(*when)
    cost = planned.cost(*when, hook.with_views, hook.without_views, prob, schedule.get('budget'))
    found = dict(
        stock_steps=cost,
        with_views=hook.with_views,
        without_views=hook.without_views,
        share=share,
        prob=prob,
        seconds=hook.seconds,
        rounds=args.rounds,
        device=str(next(runner.model.parameters()).device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )
    if not is_main_process():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_at_once(path, json.dumps(found, indent=1) + '\n')
    if args.json:
        print(json.dumps(found), file=out)
    else:
        print(
            f'{cost:.2f} stock steps{" at most" if len(set(hook.probs)) > 1 else ""}: '
            f'{hook.with_views:.2f} where every method acts, in {share * prob:.0%} of the '
            f'iterations, {hook.without_views:.2f} without views; a stock step takes '
            f'{hook.seconds:.3f} s. {path}',
            file=out,
        )


if __name__ == '__main__':
    start(main)
