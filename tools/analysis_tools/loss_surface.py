# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Is the loss flat around the features? Draws it for one test batch along the direction of an
attack at a layer and along a random one of the same l-inf norm; two checkpoints side by side.

Each checkpoint is attacked by itself, by the sign of its own gradient. The random direction has the
same signs for both.
"""

import argparse
import copy
import sys
from itertools import islice
from pathlib import Path
from typing import TextIO

import torch
from mmengine.runner import Runner

from mmfeataug.evaluation import PGD, Geometry, Target, load_fitting
from mmfeataug.utils.configs import set_workers
from mmfeataug.utils.progress import progress_bar
from mmfeataug.utils.results import results_on_stdout
from mmfeataug.utils.tasks import refuse_branches
from mmfeataug.visualization import draw_surface, loss_surface, save

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import TEST, add_config_arguments, build_model, first_batch, load_config, start


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file; its test pipeline loads annotations')
    parser.add_argument(
        'checkpoints', nargs='+', metavar='checkpoint', help='one or more of this model'
    )
    parser.add_argument('--names', nargs='+', help='what stands above the maps; file names else')
    parser.add_argument(
        '--at', required=True, help="layer, such as backbone.layer2, or 'inputs' for the image"
    )
    parser.add_argument('--side', choices=['output', 'input'], default='output', help='of it')
    parser.add_argument(
        '--eps',
        type=float,
        help='ends of both axes: l-inf norm, in deviations of the clean feature (0.5 by default), '
        'or in grey levels at inputs (4)',
    )
    parser.add_argument('--points', type=int, default=21, help='on each axis; odd')
    parser.add_argument('--batch', type=int, default=0, help='number of the test batch')
    parser.add_argument('--seed', type=int, default=0, help='of the random direction')
    parser.add_argument('--out', type=Path, help='PNG; loss_surface.png in the work dir by default')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add_config_arguments(parser)
    args = parser.parse_args()
    if args.eps is not None and not args.eps > 0:
        parser.error(f'--eps {args.eps:g}: give a length above 0')
    return args


@results_on_stdout
def main(out: TextIO) -> None:
    args = parse_args()
    pixels = args.at == 'inputs'
    eps = (4.0 if pixels else 0.5) if args.eps is None else args.eps
    unit = 'pixel' if pixels else 'std'
    names = args.names or [str(Path(*Path(c).parts[-2:])) for c in args.checkpoints]
    if len(names) != len(args.checkpoints) or len(set(names)) != len(names):
        raise SystemExit('--names: give every checkpoint one of its own')
    cfg = load_config(args, TEST[:1])
    model = build_model(cfg).to(args.device).eval()
    refuse_branches(model, 'a surface is of', 'take the plain detector and its weights')
    set_workers(cfg.test_dataloader)
    loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
    if not 0 <= args.batch < len(loader):
        raise SystemExit(f'--batch {args.batch}: the test set has {len(loader)} batches')
    inputs, samples = first_batch(model, islice(loader, args.batch, None), False)
    target = Target(model, args.at, args.side, args.seed, Geometry(loader.dataset))
    options = dict(at=args.at, side=args.side, unit=unit, steps=1, step_size=eps)
    attack = PGD(eps=eps, **options, random_start=False)
    attack.bind(model)
    surfaces, first = {}, copy.deepcopy(model.state_dict())
    with progress_bar() as progress:
        for name, checkpoint in zip(names, args.checkpoints, strict=True):
            # What this one lacks must not come from the one before.
            model.load_state_dict(first)
            load_fitting(model, checkpoint)
            task = progress.add_task(name, total=args.points**2)
            with target.open(inputs, samples) as batch:
                attack.images = batch.images
                directions = attack.directions(batch.features, batch.gradients, args.seed)
                surfaces[name] = loss_surface(
                    batch.total_at,
                    batch.features,
                    directions,
                    args.points,
                    lambda task=task: progress.advance(task),
                )
    reach = f' (1: {eps:g} {"grey levels" if pixels else "deviations"})'
    path = args.out or Path(cfg.work_dir) / 'loss_surface.png'
    title = f'{Path(args.config).stem}: loss around {args.at}'
    print(save(draw_surface(surfaces, title, reach), path), file=out)


if __name__ == '__main__':
    start(main)
