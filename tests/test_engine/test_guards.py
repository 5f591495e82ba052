# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import copy
import pickle
import random
import weakref
from collections import OrderedDict, deque

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


class Slotted:
    __slots__ = ('count', 'mean')

    def __init__(self):
        self.count = 0


class TestLossState:
    def test_what_changes_is_put_back(self):
        model = Keeper()
        state = LossState(model)
        before = state.save()
        queue, mean = model.queue, model.mean
        model.queue.append(3)
        model.mean += 1
        after = state.save_after(before)
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
        state = LossState(model)
        before = state.save()
        model.mean += 1
        state.save_after(before)
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
        state = LossState(model)
        before = state.save()
        table, inner = model.table, model.table['a']
        inner.append(torch.ones(2))
        after = state.save_after(before)
        for _ in range(2):
            if len(inner) > 1:
                inner[1] += 1
            inner.append(3)
            state.restore(before)
            assert model.table is table
            assert table['a'] is inner == [1]
            state.restore(after)
            assert len(inner) == 2
            assert torch.equal(inner[1], torch.ones(2))

    @pytest.mark.parametrize('first', [0, 3])
    def test_large_tensors(self, first):
        """Whichever way they are written to; the one step in which that is new apart."""
        model = Keeper()
        model.register_buffer('bank', torch.zeros(2**18 + 1))
        model.labels = torch.zeros(2**18 + 1, dtype=torch.long)
        state = LossState(model)
        for step in range(6):
            before = state.save()
            if step >= first:
                model.bank.data[5] += 1
                model.labels[7] += 1
            after = state.save_after(before)
            state.restore(before)
            done = max(step - first + 1, 0)
            # What the first change of a large tensor has overwritten is gone.
            began = done - bool(done) if step != first or first == 0 else done
            assert (model.bank[5], model.labels[7]) == (began, began)
            model.bank.data[5] += 1
            model.labels[7] += 1
            state.restore(after)
            if done:
                assert (model.bank[5], model.labels[7]) == (done, done)
            else:
                model.bank[5] = model.labels[7] = 0

    def test_what_other_passes_change_alone(self):
        """A view may do what the clean pass did not."""
        model = Keeper()
        model.slotted, model.random = Slotted(), np.random.default_rng(0)
        state = LossState(model)
        before = state.save()
        after = state.save_after(before)
        model.mean.data += 1
        model.slotted.count, model.slotted.mean = 5, torch.ones(2)
        model.table['b'] = 1
        drawn = model.random.random()
        state.restore(after)
        assert not model.mean.any()
        assert model.slotted.count == 0
        assert not hasattr(model.slotted, 'mean')
        assert list(model.table) == ['a']
        assert model.random.random() == drawn

    def test_graphs_do_not_notice(self):
        """What is put back in place was saved for backward."""
        model = Keeper()
        model.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        x = torch.ones(2, requires_grad=True)
        state = LossState(model)
        before = state.save()
        total = (x * model.frozen * (model.mean + 1)).sum()
        after = state.save_after(before)
        for saved in (before, after):
            state.restore(saved)
        total.backward()
        assert x.grad.tolist() == [1, 1]

    def test_what_stays_swapped_is_known(self):
        """An attack ends with what was before."""
        model = Keeper()
        model.register_buffer('bank', torch.zeros(2**18 + 1))
        state = LossState(model)
        for _ in range(4):
            before = state.save()
            model.bank.add_(1)
            state.save_after(before)
            state.restore(before)
            assert not model.bank.any()

    @pytest.mark.parametrize('write', [torch.neg, lambda bank: torch.roll(bank, 1, 1)])
    def test_large_tensors_of_the_same_norm(self, write):
        """Rolled or turned past the version counter."""
        model = Keeper()
        model.register_buffer('bank', torch.randn(128, 4096))
        state = LossState(model)
        state.save_after(state.save())
        before, held = state.save(), model.bank.clone()
        model.bank.data = write(model.bank.data)
        after, left = state.save_after(before), model.bank.clone()
        state.restore(before)
        model.bank.data = write(model.bank.data)
        state.restore(after)
        assert torch.equal(model.bank, left)
        assert not torch.equal(left, held)

    def test_order_is_state(self):
        model = Keeper()
        model.cache = OrderedDict(a=1, b=2)
        state = LossState(model)
        before = state.save()
        model.cache.move_to_end('a')
        after = state.save_after(before)
        state.restore(before)
        assert list(model.cache) == ['a', 'b']
        state.restore(after)
        assert list(model.cache) == ['b', 'a']

    def test_odd_company_does_no_harm(self):
        """Next to a tensor that changes."""

        class Pair(tuple):
            def __new__(cls, a, b):
                return super().__new__(cls, (a, b))

        class Rude(dict):
            __slots__ = ()
            __getattr__ = dict.__getitem__

        class Slippery:
            __slots__ = ('__weakref__', 'a')

            def __getattr__(self, name):
                return 5

        model, gone = Keeper(), Slippery()
        model.pair, model.rude, model.slippery = Pair(1, 2), Rude(), Slippery()
        model.proxy, model.system = weakref.proxy(gone), random.SystemRandom()
        model.grown = np.zeros(2)
        del gone
        state = LossState(model)
        before = state.save()
        model.mean += 1
        model.grown.resize(3, refcheck=False)
        after = state.save_after(before)
        state.restore(before)
        assert model.grown.shape == (2,)
        assert not model.mean.any()
        state.restore(after)
        assert model.mean.all()
        assert isinstance(model.pair, Pair)

    def test_copies_learn_anew(self):
        model = Keeper()
        model.__dict__['state'] = state = LossState(model)
        state.save_after(state.save())
        other = pickle.loads(pickle.dumps(copy.deepcopy(model)))
        before = other.state.save()
        other.mean += 1
        other.state.save_after(before)
        other.state.restore(before)
        assert not other.mean.any()
