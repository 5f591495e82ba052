# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Write a checkpoint that stock tools read: weights only, without second batch norms
and other parameters of augmentations."""

import argparse
import os

import torch
from mmengine.runner.checkpoint import CheckpointLoader

from mmfeataug.engine import has_auxiliary, stock_state_dict


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
    checkpoint = CheckpointLoader.load_checkpoint(args.checkpoint, map_location='cpu')
    stock = stock_state_dict(checkpoint['state_dict'], args.aux_bn)
    removed = len(checkpoint['state_dict']) - len(stock)
    if args.aux_bn and not has_auxiliary(checkpoint['state_dict']):
        raise SystemExit(f'--aux-bn: {args.checkpoint!r} has no second batch norms')
    meta = {k: v for k, v in checkpoint.get('meta', {}).items() if k != 'cfg'}
    torch.save({'meta': meta, 'state_dict': stock}, args.out)
    print(f'{args.out}: {len(stock)} tensors, {removed} of the plugin left out')


if __name__ == '__main__':
    main()
