# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Write a checkpoint that stock tools read: weights only, without second batch norms
and other parameters of augmentations."""

import argparse
import io
import os
from pathlib import Path

import torch
from mmengine.runner.checkpoint import CheckpointLoader

from mmfeataug.engine import has_auxiliary, stock_state_dict
from mmfeataug.utils.files import write_at_once


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='as training saved it')
    parser.add_argument('out', help='file to write')
    parser.add_argument(
        '--aux-bn', action='store_true', help='put the second batch norms in the place of the first'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not os.path.isfile(args.checkpoint):
        raise SystemExit(f'{args.checkpoint!r} is no file')
    if os.path.realpath(args.out) == os.path.realpath(args.checkpoint):
        raise SystemExit(
            f'{args.out!r} is the checkpoint itself, whose optimizer would be lost: give another '
            'file'
        )
    checkpoint = CheckpointLoader.load_checkpoint(args.checkpoint, map_location='cpu')
    state = checkpoint.get('state_dict', checkpoint)
    stock = stock_state_dict(state, args.aux_bn)
    removed = len(state) - len(stock)
    if args.aux_bn and not has_auxiliary(state):
        raise SystemExit(f'--aux-bn: {args.checkpoint!r} has no second batch norms')
    meta = {k: v for k, v in checkpoint.get('meta', {}).items() if k != 'cfg'}
    content = io.BytesIO()
    torch.save({'meta': meta, 'state_dict': stock}, content)
    write_at_once(Path(args.out), content.getvalue())
    print(f'{args.out}: {len(stock)} tensors, {removed} of the plugin left out')


if __name__ == '__main__':
    main()
