# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Write the corrupted images of a config's test set once, for tools/test_robustness.py --images.
What is there already is not made again: a run that was killed is gone on with by the same command.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from mmengine.config import DictAction
from mmengine.registry import init_default_scope

from mmfeataug.datasets import Corrupt, make_corrupted
from mmfeataug.evaluation import SEVERITIES, select_corruptions
from mmfeataug.utils.configs import scope_of
from mmfeataug.utils.results import results_on_stdout

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import load_config, start


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of this test set alone')
    parser.add_argument(
        '--corruptions',
        nargs='+',
        default=['benchmark'],
        metavar='NAME',
        help='as in tools/test_robustness.py',
    )
    parser.add_argument(
        '--severities', nargs='+', type=int, choices=SEVERITIES, default=list(SEVERITIES)
    )
    parser.add_argument('--workers', type=int, default=2, help='processes; 0: this one')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings, such as test_dataloader.dataset.data_root=PATH',
    )
    # Settings of tools that run a model.
    parser.set_defaults(launcher='none', work_dir=None, local_rank=0)
    return parser.parse_args(argv)


@results_on_stdout
def main(out: TextIO, argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        corruptions = select_corruptions(args.corruptions)
        Corrupt(corruptions[0])
    except (ValueError, ImportError) as error:
        raise SystemExit(f'--corruptions: {error}') from error
    cfg = load_config(args, ('test_dataloader',))
    scope = scope_of(cfg)
    init_default_scope(scope or 'mmengine')
    conditions = list(itertools.product(corruptions, sorted(set(args.severities))))
    try:
        written = make_corrupted(cfg.test_dataloader, scope, args.out, conditions, args.workers)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    print(f'{written} images written, {len(conditions)} conditions complete: {args.out}', file=out)


if __name__ == '__main__':
    start(main)
