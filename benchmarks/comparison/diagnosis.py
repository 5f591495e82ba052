# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Why do views harm a segmentor under noise? Train a third of the usual length, then let only a
part of what noise does to the features reach the rest of the network. What is complete is not run
again. ``python -m benchmarks.comparison.diagnosis``, from the repository's root.
"""

import argparse
import copy
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from mmfeataug.datasets import corrupt_images
from mmfeataug.utils.files import write_at_once

from .run import HERE, WORK, config_of, need_weights, specification, train, versions

BED, PART, LENGTH, NOISE = 'camvid-360', 'tune', 1 / 3, 'gaussian_noise'
STUDIED = ('baseline', 'random', 'afan', 'reinject-channel', 'reinject-spatial')
DEEP, SKIP = 'backbone.timm_model.blocks.2', 'decode_head.c1_bottleneck'


def moments(feature: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel of each image."""
    return feature.mean((2, 3), keepdim=True), feature.std((2, 3), keepdim=True)


def shifted(clean: Tensor, noisy: Tensor) -> Tensor:
    """The clean feature with the means of the noisy one."""
    return clean + moments(noisy)[0] - moments(clean)[0]


def restored(clean: Tensor, noisy: Tensor) -> Tensor:
    """The noisy feature with means and deviations of the clean one."""
    (m, s), (mean, std) = moments(noisy), moments(clean)
    return (noisy - m) / s * std + mean


Part = Callable[[Tensor, Tensor], Tensor] | None
PARTS: dict[str, tuple[Part, Part]] = {
    'noise': (lambda _, n: n, lambda _, n: n),
    'noise behind the tap only': (lambda _, n: n, None),
    'noise in the skip only': (None, lambda _, n: n),
    'channel means in the skip only': (None, shifted),
    'all but channel means and deviations': (restored, restored),
}
"""What noise changes: the feature at the tap, and the one that the skip passes by it."""


class Features:
    """What passes two places of a model, and what shall pass there instead."""

    def __init__(self, model: nn.Module) -> None:
        self.seen: dict[str, Tensor] = {}
        self.instead: dict[str, Tensor] = {}
        model.get_submodule(DEEP).register_forward_hook(self._deep)
        model.get_submodule(SKIP).register_forward_pre_hook(self._skip)

    def _deep(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        self.seen[DEEP] = output
        return self.instead.get(DEEP, output)

    def _skip(self, module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        (self.seen[SKIP],) = args
        return (self.instead.get(SKIP, args[0]),)

    def of(self, model: Any, batch: dict) -> tuple[dict[str, Tensor], list]:
        """Features and predictions of a batch."""
        predictions = model.test_step(copy.deepcopy(batch))
        return dict(self.seen), predictions


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norms normalise by what they see, and learn nothing of it."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = copy.deepcopy([norm.state_dict() for norm in norms])
    for norm in norms:
        norm.train()
    try:
        yield
    finally:
        for norm, state in zip(norms, kept, strict=True):
            norm.load_state_dict(state)
            norm.eval()


def renew(model: Any, batches: Iterable[dict]) -> None:
    """Compute the statistics of the head's batch norms anew, from clean batches of the training."""
    norms = [m for m in model.decode_head.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in batches:
        model.loss(**model.data_preprocessor(batch, True))
    model.eval()


def noisy(cfg: Config) -> Config:
    """The same test on noisy images."""
    cfg = copy.deepcopy(cfg)
    corrupt_images(cfg.test_dataloader, 'mmseg', NOISE, 3)
    return cfg


@torch.no_grad()
def examined(runner: Runner, cfg: Config) -> dict[str, float]:
    """mIoU, by what noise was let through."""
    runner.load_or_resume()
    model, evaluator = runner.model.eval(), runner.build_evaluator(cfg.test_evaluator)
    features = Features(model)
    found: dict[str, list] = {}
    loaders = [Runner.build_dataloader(c.test_dataloader) for c in (cfg, noisy(cfg))]
    evaluator.dataset_meta = loaders[0].dataset.metainfo
    for batch, corrupted in zip(*loaders, strict=True):
        before, predictions = features.of(model, batch)
        found.setdefault('clean', []).extend(predictions)
        after, _ = features.of(model, corrupted)
        for name, parts in PARTS.items():
            for place, part in zip((DEEP, SKIP), parts, strict=True):
                features.instead[place] = (
                    part(before[place], after[place]) if part else before[place]
                )
            found.setdefault(name, []).extend(features.of(model, batch)[1])
        features.instead.clear()
        with batch_statistics(model):
            found.setdefault('noise, statistics of the batch', []).extend(
                features.of(model, corrupted)[1]
            )
    renew(model, islice(Runner.build_dataloader(cfg.train_dataloader), 25))
    found['noise, batch norms of the head anew'] = [
        prediction for batch in loaders[1] for prediction in model.test_step(batch)
    ]
    scores = {}
    for name, predictions in found.items():
        evaluator.process(data_samples=predictions)
        scores[name] = float(evaluator.evaluate(len(predictions))['mIoU'])
    return scores


def result_of(arm: str, seed: int) -> Path:
    """Where the figures are kept."""
    return HERE / 'diagnosis' / f'{arm}-{seed}.json'


def run(arm: str, seed: int) -> None:
    """Train and examine."""
    from common import build_runner

    spec = specification(BED, arm, seed, PART)
    spec['settings']['length'] = LENGTH
    cfg, folder = config_of(spec), WORK / 'diagnosis' / f'{arm}-{seed}'
    checkpoint = train(cfg.copy(), folder)
    cfg.custom_hooks, cfg.load_from, cfg.work_dir = [], str(checkpoint), str(folder)
    figures = examined(build_runner(cfg), cfg)
    path = result_of(arm, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = spec | dict(figures=figures, versions=versions())
    write_at_once(path, json.dumps(found, indent=1) + '\n')


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--arms', nargs='+', default=STUDIED)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0])
    args = parser.parse_args()
    need_weights()
    torch.set_num_threads(1)
    for seed in args.seeds:
        for arm in args.arms:
            if not result_of(arm, seed).exists():
                run(arm, seed)


if __name__ == '__main__':
    main()
