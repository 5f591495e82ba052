# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""How much of its mAP, mIoU or accuracy does a checkpoint keep under attack? Runs the config's test
once for each strength of an attack on images or features; docs/adversarial.md says what the numbers
mean.
"""

import argparse
import json
import os.path as osp
import sys
from pathlib import Path
from typing import TextIO

from common import (
    TEST,
    add_aux_bn_argument,
    add_common_arguments,
    build_runner,
    check_files,
    load_config,
    start,
)
from mmengine.dist import is_main_process

from mmfeataug.evaluation import ATTACKS, NORMS, UNITS
from mmfeataug.utils.configs import type_name
from mmfeataug.utils.results import results_on_stdout


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file; its test pipeline loads annotations')
    parser.add_argument('checkpoint', help='checkpoint file; stock ones and ours are alike')
    parser.add_argument(
        '--attack',
        choices=ATTACKS,
        default='pgd',
        help="'pgd': projected gradient ascent of the training loss; 'apgd': with steps that "
        "adapt; 'segpgd', 'cospgd': of each pixel's loss, weighted; 'ensemble': of each image the "
        "strongest of these that suit the task; 'statistics': AdvBN's worst means and deviations "
        "of channels; 'swap': those of other images of the batch",
    )
    parser.add_argument(
        '--at', default='inputs', help="'inputs' is the image; or a layer, such as backbone.layer2"
    )
    parser.add_argument('--side', choices=['output', 'input'], default='output', help='of it')
    parser.add_argument(
        '--eps',
        type=float,
        nargs='+',
        help='strengths; 0 is the stock test. Radius of the ball in --unit, '
        '0 0.5 1 2 4 by default; of statistics: bound of the factors, 0 0.3 0.6 1.1; of swap: '
        'share of the other statistics, 0 0.5 1',
    )
    parser.add_argument('--steps', type=int, help='of the attack: 10 by default, 6 with statistics')
    parser.add_argument(
        '--step-size',
        type=float,
        help='2.5 * eps / steps by default; 0.2 with statistics; the first of apgd: 2 * eps',
    )
    parser.add_argument(
        '--norm',
        choices=NORMS,
        help='of pgd; linf (default): of each element; l2: of all elements of an image or of its '
        'feature together',
    )
    parser.add_argument(
        '--unit',
        choices=UNITS,
        help="of eps with pgd: 'pixel', grey levels of 255 of the raw image, at inputs; at a layer "
        "'std', deviations of the clean feature (default), or 'absolute', as the feature is",
    )
    parser.add_argument(
        '--image-range',
        nargs=2,
        type=float,
        metavar=('SMALLEST', 'LARGEST'),
        help='of the images before they are normalised, with pgd at inputs; learnt by default',
    )
    parser.add_argument(
        '--against',
        nargs='+',
        default=[],
        metavar='WORD',
        help="attack only terms of the loss with one of these words in their name, such as 'cls' "
        "or 'bbox'; the whole loss by default",
    )
    parser.add_argument(
        '--no-random-start', action='store_true', help='start PGD from the clean value'
    )
    parser.add_argument(
        '--restarts',
        type=int,
        default=1,
        help='random starts of each attack, of which the strongest counts, image by image',
    )
    parser.add_argument(
        '--flag-images',
        type=int,
        default=16,
        help='images that signs of a hidden gradient are looked for on; 0: none',
    )
    parser.add_argument(
        '--transfer',
        metavar='CHECKPOINT',
        help='of another model: is an attack on that one stronger here than one on this one?',
    )
    parser.add_argument(
        '--transfer-config', metavar='CONFIG', help='of that model; this config by default'
    )
    parser.add_argument('--seed', type=int, default=0, help='of random starts')
    parser.add_argument(
        '--save-predictions',
        action='store_true',
        help='keep those of each strength in <out-dir>/predictions',
    )
    parser.add_argument(
        '--out-dir', help='where results go; <work directory>/adversarial by default'
    )
    parser.add_argument('--resume', action='store_true', help='keep the strengths that are there')
    parser.add_argument('--json', action='store_true', help='print the results as JSON')
    add_aux_bn_argument(parser)
    add_common_arguments(parser)
    return parser.parse_args()


DEFAULT_EPS = {'pgd': (0, 0.5, 1, 2, 4), 'statistics': (0, 0.3, 0.6, 1.1), 'swap': (0, 0.5, 1)}


@results_on_stdout
def main(out: TextIO) -> None:
    args = parse_args()
    check_files(args.checkpoint, args.transfer, args.transfer_config)
    cfg = load_config(args, TEST)
    cfg.load_from, cfg.resume = args.checkpoint, False
    # Logs too: the Runner would write this config over the one beside the checkpoints.
    cfg.work_dir = args.out_dir or osp.join(cfg.work_dir, 'adversarial')
    names = ('attack', 'at', 'side', 'steps', 'step_size', 'norm', 'unit', 'against', 'seed')
    names += ('image_range', 'restarts', 'flag_images', 'transfer', 'transfer_config')
    names += ('save_predictions',)
    own = cfg.get('test_cfg') or {}
    if own.get('fp16'):
        raise SystemExit(
            'test_cfg.fp16=True: attacks are made in float32; --cfg-options test_cfg.fp16=False'
        )
    if type_name(own) == 'AdversarialTestLoop':
        print('the test_cfg of the config is replaced by the command line', file=sys.stderr)
    cfg.test_cfg = dict(
        type='mmfeataug.AdversarialTestLoop',
        eps=args.eps or DEFAULT_EPS.get(args.attack, DEFAULT_EPS['pgd']),
        random_start=not args.no_random_start,
        resume=args.resume,
        **{name: getattr(args, name) for name in names},
    )
    build_runner(cfg).test()
    if is_main_process():
        table = Path(
            cfg.work_dir, 'adversarial.json' if args.json else 'adversarial.md'
        ).read_text()
        print(json.dumps(json.loads(table)) if args.json else table, file=out)


if __name__ == '__main__':
    start(main)
