# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What a resumed run draws."""

import itertools

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmfeataug.hooks import IterationSeedHook

RUNS = itertools.count()


class Drawing(Dataset):
    """Its pipeline draws from PyTorch's stream."""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return dict(x=torch.rand(1))


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x, mode='tensor'):
        return dict(loss=self.layer(torch.stack(list(x))).square().mean())


class Seen(Hook):
    """Remembers the batches, and stops."""

    def __init__(self, stop_after=None):
        self.batches, self.stop_after = [], stop_after

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.batches.append(torch.stack(list(data_batch['x'])).flatten().tolist())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.stop_after:
            meta = dict(epoch=(runner.iter + 1) // 4, iter=runner.iter + 1)
            runner.save_checkpoint(runner.work_dir, 'killed.pth', meta=meta)
            raise KeyboardInterrupt


def train(work_dir, loop, seen, workers=0, **more):
    Runner(
        Line(),
        str(work_dir),
        train_dataloader=dict(
            dataset=Drawing(),
            batch_size=2,
            num_workers=workers,
            # By torch's own seeds of workers.
            worker_init_fn=dict(type=as_they_are),
            sampler=dict(type='DefaultSampler' if loop['by_epoch'] else 'InfiniteSampler'),
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[IterationSeedHook(), seen],
        randomness=dict(seed=3),
        log_level='ERROR',
        experiment_name=f'{work_dir.name}-{next(RUNS)}',
        **more,
    ).train()
    return seen.batches


def as_they_are(*args, **kwargs):
    """Workers keep the seeds that the loader gives them."""


@pytest.mark.parametrize(
    ('loop', 'stop', 'workers'),
    [
        (dict(by_epoch=False, max_iters=6), 3, 0),
        (dict(by_epoch=True, max_epochs=2), 4, 0),
        (dict(by_epoch=True, max_epochs=3), 8, 1),
    ],
)
def test_a_resumed_run_draws_the_same_batches(loop, stop, workers, tmp_path):
    whole = train(tmp_path / 'whole', loop, Seen(), workers)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / 'killed', loop, Seen(stop), workers)
    killed = str(tmp_path / 'killed' / 'killed.pth')
    resumed = train(tmp_path / 'resumed', loop, Seen(), workers, load_from=killed, resume=True)
    assert resumed == whole[stop:]
    assert len(set(map(tuple, whole))) == len(whole)
