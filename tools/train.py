# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Train a detector, segmentor or classifier from any OpenMMLab config, with or without feature
augmentation."""

import argparse
import os
import os.path as osp

from common import TRAIN, add_common_arguments, build_runner, load_config, start
from mmengine.runner import find_latest_checkpoint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate to the batch size'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint; without a value, from the latest in the work directory',
    )
    add_common_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args, TRAIN, also=('val_dataloader',))
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise SystemExit(
                f'--auto-scale-lr: {args.config} has no auto_scale_lr.base_batch_size; add one'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume == 'auto' and find_latest_checkpoint(cfg.work_dir) is None:
        # A fine-tuning that was stopped before its first checkpoint begins with its weights.
        cfg.resume = False
        start_from = cfg.get('load_from') or 'the weights that the model has'
        print(f'--resume: {cfg.work_dir} has no checkpoint yet; begins with {start_from}')
    elif args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    os.makedirs(osp.abspath(cfg.work_dir), exist_ok=True)
    build_runner(cfg).train()


if __name__ == '__main__':
    start(main)
