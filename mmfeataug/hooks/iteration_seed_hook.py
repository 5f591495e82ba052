# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Bit-exact resume of random draws."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed

from mmfeataug.registry import HOOKS


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Makes the random draws of an iteration depend on seed, rank and iteration only.

    Checkpoints of mmengine contain no random states, so dropout, box samplers and augmentations in
    the main process draw other numbers after a resume. With this hook they draw the same, also
    after a validation. Draws in worker processes of a data loader are not controlled: for a resume
    that is exact to the bit use ``num_workers=0``, or epochs with ``persistent_workers=False``,
    whose workers start each epoch from the same seeds.

    Examples:
        >>> custom_hooks = [dict(type='mmfeataug.IterationSeedHook')]
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed what draws the first batch."""
        _seed(runner, runner.iter, 0)
        # The loader's own: an iterator that is made late would take a number from that stream.
        generator = torch.Generator().manual_seed(_seed_of(runner, runner.iter, 0))
        runner.train_dataloader.generator = generator
        batches = getattr(runner.train_loop, 'dataloader_iterator', None)
        if runner.iter and batches is not None and not hasattr(batches, 'skip_iter'):
            runner.train_loop.dataloader_iterator = _skipping(runner, batches)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Seed the step."""
        _seed(runner, runner.iter, 1)

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Seed what draws the next batch."""
        _seed(runner, runner.iter + 1, 0)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Seed what draws the batch after a validation, which a resumed run may not repeat."""
        _seed(runner, runner.iter, 0)


def _skipping(runner: Runner, batches: Iterator[Any]) -> Iterator[Any]:
    """The batches, with a new seed after those that a resumed run skips: mmengine 0.10.7 loads
    them all, and loading draws.
    """
    for _ in range(runner.iter):
        yield next(batches)
    _seed(runner, runner.iter, 0)
    yield from batches


def _seed(runner: Runner, iteration: int, phase: int) -> None:
    set_random_seed(_seed_of(runner, iteration, phase))


def _seed_of(runner: Runner, iteration: int, phase: int) -> int:
    entropy = [runner.seed or 0, get_rank(), iteration, phase]
    (seed,) = np.random.SeedSequence(entropy).generate_state(1)
    return int(seed)
