# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What does my method do? Draws, for each augmentation of a config, the clean feature at its place,
the view, their difference, where in the image it is, and the statistics of channels, on a training
batch of a trained model. With --corruption also what the model predicts on the image, clean and
corrupted.

Every augmentation is drawn alone, and as if it always acted (prob=1). Methods that work on images
show these, those that compare copies of the batch the copies, and SeA its rows. Layers declared by
AugmentedBackbone are not drawn: name them in the hook, or let FeatureAugVisualizationHook draw them
while training.
"""

import argparse
import copy
import re
import sys
from pathlib import Path, PurePath
from typing import TextIO

import numpy as np
import torch
from mmengine.runner import Runner

import mmfeataug
from mmfeataug.engine import BatchAugmentation, build_each
from mmfeataug.evaluation import load_fitting
from mmfeataug.models import collect
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.configs import data_sets, set_workers, type_name
from mmfeataug.utils.pipelines import steps
from mmfeataug.utils.pixels import learn_pipeline
from mmfeataug.utils.results import results_on_stdout
from mmfeataug.utils.tasks import refuse_branches
from mmfeataug.visualization import (
    Painter,
    deepest,
    draw,
    draw_predictions,
    levels,
    record,
    save,
    shown,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import (
    TEST,
    TRAIN,
    add_config_arguments,
    add_corruption_argument,
    build_model,
    check_corruptions,
    load_config,
    start,
    under_conditions,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file with augmentations')
    parser.add_argument('checkpoint', help='of its model or of its baseline')
    parser.add_argument('image', help='index in the training set, or the name of one of its files')
    parser.add_argument('--out', type=Path, required=True, help='folder to write pictures to')
    parser.add_argument('--batch-size', type=int, default=4, help='images in the batch')
    add_corruption_argument(
        parser, 'draw predictions on the image, clean and corrupted so, as fog 3; may be repeated'
    )
    parser.add_argument('--seed', type=int, default=0, help='of crops, flips and draws')
    add_config_arguments(parser)
    args = parser.parse_args()
    args.corruption = check_corruptions(parser, args.corruption or ())
    return args


def build_batch(cfg, model, image: str, size: int, seed: int) -> tuple:
    """Preprocessed inputs, samples and the meta of the data set: the image first, others from all
    over the set.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)
    set_workers(cfg.train_dataloader)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=seed)
    dataset = loader.dataset
    learn_pipeline(model, steps(dataset))
    first, count = find_image(dataset, image), len(dataset)
    chosen = [(first + i * count // size) % count for i in range(size)]
    data = model.data_preprocessor(loader.collate_fn([dataset[i] for i in chosen]), True)
    return data['inputs'], data['data_samples'], dataset.metainfo


def find_image(dataset, image: str) -> int:
    """Index of an image that is given as such or by the end of its path."""
    if re.fullmatch(r'\d+', image):
        found = [int(image)]
    else:
        wanted = PurePath(image).parts
        paths = (str(dataset.get_data_info(i).get('img_path')) for i in range(len(dataset)))
        found = [i for i, p in enumerate(paths) if PurePath(p).parts[-len(wanted) :] == wanted]
    if len(found) > 1:
        raise SystemExit(f'image={image!r}: {len(found)} paths end so; give more of the path')
    if not found or found[0] >= len(dataset):
        raise SystemExit(
            f'image={image!r}: the training set has {len(dataset)} images, see its root'
        )
    return found[0]


def pipeline_of(loader) -> list:
    """Steps that read the first data set of a data loader."""
    return next(iter(data_sets(loader.dataset).values())).pipeline


def draw_corrupted(cfg, checkpoint: str, image: str, corruptions: list, path: Path) -> Path:
    """Predictions on an image of the training set, as the test pipeline reads it."""
    cfg = copy.deepcopy(cfg)
    steps = pipeline_of(cfg.test_dataloader)
    dataset = cfg.train_dataloader.dataset
    while 'pipeline' in dataset and 'dataset' in dataset:
        # What mixes images takes none that are packed.
        dataset = dataset.dataset
    cfg.test_dataloader.dataset = dataset
    for dataset in data_sets(cfg.test_dataloader.dataset).values():
        dataset.pipeline = steps
    set_workers(cfg.test_dataloader)
    index = find_image(Runner.build_dataloader(cfg.test_dataloader).dataset, image)
    loaders = under_conditions(cfg, corruptions)
    paint, method = Painter(cfg, checkpoint), Path(checkpoint).stem
    pictures = {(method, label): paint(loader, [index])[0] for label, loader in loaders.items()}
    return save(draw_predictions(pictures), path)


@results_on_stdout
def main(out: TextIO) -> None:
    args = parse_args()
    cfg = load_config(args, (*TRAIN[:1], *TEST[: bool(args.corruption)]))
    model = build_model(cfg)
    load_fitting(model, args.checkpoint)
    hooks = cfg.get('custom_hooks') or ()
    entries = [a for hook in hooks for a in hook.get('augmentations') or ()] + collect(model)
    built = [made for entry in entries for _, made in build_each(model, entry, AUGMENTATIONS)]
    if not built:
        raise SystemExit(f'{args.config} has no augmentations')
    refuse_branches(model, 'pictures show', 'draw the plain detector with its augmentations')
    inputs, samples, _ = build_batch(cfg, model, args.image, args.batch_size, args.seed)
    show = shown(model, map(type_name, pipeline_of(cfg.train_dataloader)))
    images = show(inputs)
    for number, augmentation in enumerate(built):
        changes = record(augmentation)
        torch.manual_seed(args.seed)
        with mmfeataug.attach(model, [augmentation], seed=args.seed) as handle:
            if handle.needs_teacher:
                handle.follow(model)
            model.loss(inputs, samples)
        if not changes:
            print(f'{augmentation.name} left this batch as it is: try another --seed')
        places = [augmentation.at]
        if isinstance(augmentation, BatchAugmentation):
            # The deepest feature of all that are compared.
            places, changes = list(augmentation.paths), deepest(changes)
        for change in changes:
            title = f'{augmentation.name} at {", ".join(places)}'
            title += f', view {change.index}' if len({c.index for c in changes}) > 1 else ''
            name = f'{number}_{augmentation.name}_{change.index}'
            if levels(changes, change) > 1:
                title += f', level {change.level}'
                name += f'_level_{change.level}'
            figure = draw(augmentation, change, images, title, model, show)
            print(save(figure, args.out / f'{name}.png'), file=out)
    if args.corruption:
        path = args.out / 'predictions.png'
        picture = draw_corrupted(cfg, args.checkpoint, args.image, args.corruption, path)
        print(picture, file=out)


if __name__ == '__main__':
    start(main)
