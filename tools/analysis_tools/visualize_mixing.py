# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What does the generator of masks do? Draws mixtures of AdAutoMix on a batch of the training data:
each part under its mask, the mixed image and its targets.

The checkpoint's weights are those of the teacher, as EMAHook saves them; the generator is the
one that was trained, not its average.
"""

import argparse
import sys
from pathlib import Path
from typing import TextIO

import torch

import mmfeataug
from mmfeataug.engine import OWN_MODULES, build_each
from mmfeataug.evaluation import load_fitting
from mmfeataug.methods import AdAutoMix
from mmfeataug.models import collect
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.configs import type_name
from mmfeataug.utils.results import results_on_stdout
from mmfeataug.visualization import draw_mixing, record_mixtures, save, shown

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import TRAIN, add_config_arguments, build_model, load_config, start
from visualize_features import build_batch, pipeline_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file with AdAutoMix')
    parser.add_argument('checkpoint', help='of its model')
    parser.add_argument('--out-dir', type=Path, help='of mixing.png; the work dir by default')
    parser.add_argument('--batch', type=int, default=4, metavar='N', help='images in the batch')
    parser.add_argument(
        '--image', default='0', help='first image: index in the training set, or name of a file'
    )
    parser.add_argument('--seed', type=int, default=0, help='of crops, flips and draws')
    add_config_arguments(parser)
    return parser.parse_args()


def load_averaged(model: torch.nn.Module, path: str) -> None:
    """The teacher, with the generator that is being trained."""
    checkpoint = load_fitting(model, path)
    # EMAHook saves the average as the model, and the model as the average.
    trained = {
        key.removeprefix('module.'): value
        for key, value in checkpoint.get('ema_state_dict', {}).items()
        if key.startswith(f'module.{OWN_MODULES}.')
    }
    model.load_state_dict({**model.state_dict(), **trained})


@results_on_stdout
def main(out: TextIO) -> None:
    args = parse_args()
    if args.batch < 2:
        raise SystemExit(f'--batch {args.batch}: nothing is mixed; give at least 2 images')
    cfg = load_config(args, TRAIN[:1])
    model = build_model(cfg)
    entries = [{'_scope_': 'mmfeataug', **entry} for entry in collect(model)]
    built = (a for entry in entries for _, a in build_each(model, entry, AUGMENTATIONS))
    found = [a for a in built if isinstance(a, AdAutoMix)]
    if not found:
        raise SystemExit(f'{args.config} declares no AdAutoMix in its model')
    load_averaged(model, args.checkpoint)
    inputs, samples, meta = build_batch(cfg, model, args.image, args.batch, args.seed)
    images = shown(model, map(type_name, pipeline_of(cfg.train_dataloader)))(inputs)

    mixtures = record_mixtures(found[0])
    torch.manual_seed(args.seed)
    with mmfeataug.attach(model, found[:1], seed=args.seed) as handle:
        handle.follow(model)
        model.loss(inputs, samples)
    path = (args.out_dir or Path(cfg.work_dir)) / 'mixing.png'
    print(save(draw_mixing(images, samples, mixtures[-1], meta), path), file=out)


if __name__ == '__main__':
    start(main)
