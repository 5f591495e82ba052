# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import random
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn

from mmfeataug.engine.guards import BatchNormGuard, RandomState
from mmfeataug.engine.loss_state import LossState


def draw():
    return torch.rand(1).item(), np.random.rand(), random.random()


def test_random_state_covers_all_streams():
    state = RandomState()
    first = draw()
    assert draw() != first
    for _ in range(2):
        state.restore()
        assert draw() == first


class TestBatchNormGuard:
    @pytest.mark.parametrize(
        ('policy', 'mean', 'moved'),
        [('shared', 0.0, True), ('frozen', 0.0, False), ('eval', 5.0, False)],
    )
    def test_policy(self, policy, mean, moved):
        norm = nn.BatchNorm1d(2).train()
        x = torch.randn(64, 2) + 5
        with BatchNormGuard(norm) as guard:
            guard.apply(policy)
            out = norm(x)
        assert out.mean().item() == pytest.approx(mean, abs=0.5)
        assert bool(norm.running_mean.any()) is moved
        assert norm.training
        assert norm.track_running_stats

    def test_layers_in_eval_mode_stay(self):
        norm = nn.BatchNorm1d(2).eval()
        with BatchNormGuard(norm) as guard:
            guard.apply('shared')
            assert not norm.training

    def test_restored_after_an_error(self):
        norm = nn.BatchNorm1d(2).train()
        with pytest.raises(ValueError), BatchNormGuard(norm) as guard:
            guard.apply('eval')
            raise ValueError
        assert norm.training


class Keeper(nn.Module):
    def __init__(self):
        super().__init__()
        self.queue = deque([1, 2], maxlen=2)
        self.table = {'a': [1]}
        self.register_buffer('mean', torch.zeros(2))
        self.other = nn.Linear(2, 2)


class TestLossState:
    def test_only_what_changes_is_watched_and_put_back(self):
        model = Keeper()
        state = LossState(model, passes=1)
        before = state.save()
        queue, mean = model.queue, model.mean
        model.queue.append(3)
        model.mean += 1
        before, after = state.learn(before, state.save())
        assert len(before) == 1
        model.new = 7
        state.restore(before)
        assert model.queue is queue
        assert list(queue) == [1, 2]
        assert not model.mean.any()
        assert mean.all()
        assert not hasattr(model, 'new')
        model.mean += 5
        state.restore(after)
        assert model.mean is mean
        assert mean.tolist() == [1, 1]

    def test_who_shares_memory_still_does(self):
        model = Keeper()
        model.table['mean'], model.first = model.mean, model.mean[:1]
        state = LossState(model, passes=1)
        before = state.save()
        model.mean += 1
        before, _ = state.learn(before, state.save())
        state.restore(before)
        assert not model.mean.any()
        model.mean.mul_(0).add_(4)
        assert model.table['mean'].tolist() == [4, 4]
        assert model.first.tolist() == [4]

    def test_mode_is_not_state(self):
        """Who sets it while losses are evaluated wants it kept."""
        model = Keeper().eval()
        state = LossState(model)
        before = state.save()
        model.train()
        state.restore(before)
        assert model.training

    def test_what_stands_deeper(self):
        """A queue for each class."""
        model = Keeper()
        state = LossState(model, passes=1)
        before = state.save()
        table, inner = model.table, model.table['a']
        inner.append(torch.ones(2))
        before, after = state.learn(before, state.save())
        assert len(before) == 1
        for _ in range(2):
            inner[1] += 1
            inner.append(3)
            state.restore(before)
            assert model.table is table
            assert table['a'] is inner == [1]
            state.restore(after)
            assert len(inner) == 2
            assert torch.equal(inner[1], torch.ones(2))

    def test_nothing_changes_nothing_is_watched(self):
        state = LossState(Keeper(), passes=1)
        assert state.learn(state.save(), state.save()) == ([], [])
        assert state.save() == []
