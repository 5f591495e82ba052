# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What does my method do? Draws, for each augmentation of a config, the clean feature at its place,
the view, their difference and the statistics of channels, on a training batch of a trained model.

Every augmentation is drawn alone, and as if it always acted (prob=1). Methods that work on images
show these, those that compare copies of the batch the copies, and SeA its rows. Layers declared by
AugmentedBackbone are not drawn: name them in the hook.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.runner import Runner, load_checkpoint

import mmfeataug
from mmfeataug.engine import BatchAugmentation, find_module
from mmfeataug.methods import SeA
from mmfeataug.methods.pixels import PixelScale
from mmfeataug.models.wrappers import collect
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.visualization import features

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import add_common_arguments, build_model, load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file with augmentations')
    parser.add_argument('checkpoint', help='of its model or of its baseline')
    parser.add_argument('image', help='index in the training set, or the name of one of its files')
    parser.add_argument('--out', type=Path, required=True, help='folder to write pictures to')
    parser.add_argument('--batch-size', type=int, default=4, help='images in the batch')
    parser.add_argument('--seed', type=int, default=0, help='of crops, flips and draws')
    add_common_arguments(parser)
    return parser.parse_args()


def build_batch(cfg, model, image: str, size: int, seed: int) -> tuple:
    """Preprocessed inputs, samples and the meta of the data set: the image first, others from all
    over the set.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=seed)
    dataset = loader.dataset
    paths = [str(dataset.get_data_info(i).get('img_path')) for i in range(len(dataset))]
    found = [i for i, path in enumerate(paths) if path.endswith(image)]
    first = int(image) if re.fullmatch(r'\d+', image) else (found or [len(paths)])[0]
    if first >= len(paths):
        raise SystemExit(f'image={image!r}: the training set has {len(paths)} images, see its root')
    chosen = [(first + i * len(paths) // size) % len(paths) for i in range(size)]
    data = model.data_preprocessor(loader.collate_fn([dataset[i] for i in chosen]), True)
    return data['inputs'], data['data_samples'], dataset.metainfo


def train_pipeline(cfg) -> list:
    """Steps of the training data, through data sets that wrap others."""
    dataset = cfg.train_dataloader.dataset
    while 'pipeline' not in dataset:
        dataset = dataset.get('dataset') or dataset.datasets[0]
    return dataset.pipeline


def main() -> None:
    args = parse_args()
    cfg = load_config(args, ('train_dataloader',))
    model = build_model(cfg)
    load_checkpoint(model, args.checkpoint, map_location='cpu')
    entries = [a for hook in cfg.get('custom_hooks', []) for a in hook.get('augmentations') or ()]
    entries += collect(model)
    if not entries:
        raise SystemExit(f'{args.config} has no augmentations')
    inputs, samples, _ = build_batch(cfg, model, args.image, args.batch_size, args.seed)
    turned = [cfg.model.data_preprocessor.get(key) for key in ('bgr_to_rgb', 'to_rgb')]
    is_rgb = any(turned) or not any('LoadImage' in t.type for t in train_pipeline(cfg))

    def pictures(batch: torch.Tensor) -> np.ndarray:
        raw = PixelScale(model).raw(batch.float()).movedim(1, -1).numpy(force=True)
        return raw if is_rgb else raw[..., ::-1].copy()

    images = pictures(inputs)
    args.out.mkdir(parents=True, exist_ok=True)
    for number, entry in enumerate(entries):
        augmentation = AUGMENTATIONS.build({'_scope_': 'mmfeataug', **entry})
        changes = features.record(augmentation)
        torch.manual_seed(args.seed)
        with mmfeataug.attach(model, [augmentation], seed=args.seed):
            model.loss(inputs, samples)
        places = [augmentation.at]
        if isinstance(augmentation, BatchAugmentation):
            # The deepest feature of all that are compared.
            places, changes = list(augmentation.places), changes[-1:]
        for view, change in enumerate(changes):
            path = args.out / f'{number}_{augmentation.name}_{view}.png'
            title = f'{augmentation.name} at {", ".join(places)}'
            title += f', view {view + 1} of {len(changes)}' if len(changes) > 1 else ''
            common = change, images, title, path
            if change.images is not None:
                features.draw_copies(*common, pictures(change.images))
            elif isinstance(augmentation, SeA):
                features.draw_rows(*common, find_module(model, augmentation.at))
            elif augmentation.at == 'inputs':
                features.draw_change(*common, pictures(change.view))
            elif change.clean.dim() > 2:
                features.draw_change(*common)
            else:
                print(f'{title}: vectors without positions are not drawn')
                continue
            print(path)


if __name__ == '__main__':
    main()
