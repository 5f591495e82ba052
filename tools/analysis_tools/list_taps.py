# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Which layer? Lists every place of a config's model where a tap can go, with the output's shape,
the share t of a training step that lies behind it, and what K views there cost: 1 + K t stock
steps.

Times are stamped in forward and backward of the stock step. The batch is the first of the training
data, or noise with random targets if --size is given.
"""

import argparse
import sys
from pathlib import Path
from typing import TextIO

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from rich.table import Table
from torch.utils._pytree import tree_flatten

from mmfeataug.datasets import random_batch
from mmfeataug.engine import first_choices, tail_shares
from mmfeataug.utils.configs import set_workers
from mmfeataug.utils.progress import progress_bar
from mmfeataug.utils.results import print_table, results_on_stdout
from mmfeataug.utils.tasks import refuse_branches

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import build_model, check_data, first_batch, start

_FIRST = (
    '* first choices: the first stages of the backbone with stride 4 and 8; the later one is '
    'cheaper (smaller t). Views at stride 8 helped detectors and harmed segmentors '
    '(docs/results.md).'
)
_NO_FIRST = (
    'No stage of the backbone has stride 4 or 8, where views are tried first '
    '(docs/results.md): begin with its first stage.'
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file; a plugin block in it is not used')
    parser.add_argument(
        '--views', type=int, default=1, metavar='K', help='views to predict the cost for'
    )
    parser.add_argument(
        '--depth', type=int, default=3, help='levels of the dotted path to show; 0 shows all'
    )
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('H', 'W'), help='noise of this size instead of data'
    )
    parser.add_argument(
        '--batch-size', type=int, default=2, help='images in the batch, with --size'
    )
    parser.add_argument('--repeats', type=int, default=5, help='steps to take the median of')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--json', action='store_true', help='the table as JSON')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


@results_on_stdout
def main(out: TextIO) -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.size and 'size' in cfg.model.get('data_preprocessor', {}):
        cfg.model.data_preprocessor.size = tuple(args.size)
    model = build_model(cfg).to(args.device)
    if args.size:
        refuse_branches(model, '--size makes', 'leave --size out, to take training data')
    elif cfg.get('train_dataloader') is None:
        raise SystemExit(f'{args.config} has no train_dataloader: give --size, for noise instead')
    if args.size:
        batch = random_batch(model, tuple(args.size), args.batch_size)
    else:
        check_data(cfg, ('train_dataloader',))
        set_workers(cfg.train_dataloader)
        batch = first_batch(model, Runner.build_dataloader(cfg.train_dataloader, seed=0), True)
    with progress_bar() as progress:
        task = progress.add_task('stock steps', total=args.repeats + 1)

        def compute_loss() -> torch.Tensor:
            loss = model.parse_losses(model.loss(*batch))[0]
            progress.advance(task)
            return loss

        places = tail_shares(model, compute_loss, repeats=args.repeats)
    image = next(t for t in tree_flatten(batch[0])[0] if isinstance(t, torch.Tensor))
    stars = first_choices(model, places, tuple(image.shape[-2:]))
    columns = (
        'at',
        'output shapes',
        't',
        f'cost of {args.views} view{"" if args.views == 1 else "s"}',
        'first choice',
    )
    table = Table(*columns, title=args.config)
    for path, place in places.items():
        # An index at the end ("shared_fcs.1") is no level of its own.
        depth = path.rstrip('0123456789').rstrip('.').count('.')
        if args.depth and depth >= args.depth and path not in stars:
            continue
        shapes = ' '.join('x'.join(map(str, shape)) for shape in place.shapes)
        table.add_row(
            path,
            shapes,
            f'{place.share:.2f}',
            f'{1 + args.views * place.share:.2f} x',
            '*' if path in stars else '',
        )
    print_table(table, out, args.json)
    notes = sys.stderr if args.json else out
    print(_FIRST if stars else _NO_FIRST, file=notes)
    print(
        "'inputs' is a place too: the images themselves, t = 1. Add side='input' for what a "
        'module is called with.',
        file=notes,
    )


if __name__ == '__main__':
    start(main)
