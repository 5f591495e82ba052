# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 5: nothing is left behind by an attack, and what a view cannot use is dropped."""

import copy
import itertools
import logging
import math
from collections import deque, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

import mmfeataug
from mmfeataug.engine import FeatureAugmentation, View
from tests.contract.cases import EACH_TASK, afan
from tests.contract.test_1_stock_outside import assert_same
from tests.models import (
    buffers,
    build_detector,
    build_segmentor,
    random_test_batch,
    relative_difference,
    step,
)
from tests.oracle import Unmoved


def counters(model):
    return {n: int(b) for n, b in model.named_buffers() if n.endswith('num_batches_tracked')}


@EACH_TASK
class TestTraces:
    def test_no_gradients_before_backward(self, build, at):
        model = build()
        batch = random_test_batch(model)
        with mmfeataug.attach(model, [afan(at, steps=3)]):
            model.loss(*batch)
        assert all(p.grad is None for p in model.parameters())

    @pytest.mark.parametrize(('bn', 'updates'), [('shared', 3), ('frozen', 1), ('eval', 1)])
    def test_batch_norm_policy(self, build, at, bn, updates):
        """Layers behind the tap see the clean pass, and each of the two views if they share
        statistics; attack steps never count."""
        model = build()
        batch = random_test_batch(model)
        with mmfeataug.attach(model, [afan(at, bn=bn, steps=3)]):
            step(model, batch)
        counts = counters(model)
        assert counts['backbone.layer4.1.bn1.num_batches_tracked'] == updates
        assert counts['backbone.bn1.num_batches_tracked'] == 1
        assert all(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        assert all(m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm2d))

    def test_frozen_policy_leaves_stock_statistics(self, build, at):
        stock, ours = build(), build()
        batch = random_test_batch(stock)
        step(stock, batch)
        with mmfeataug.attach(ours, [afan(at, bn='frozen')]):
            step(ours, batch)
        assert_same(buffers(ours), buffers(stock))

    def test_failure_inside_a_view_restores_everything(self, build, at):
        class Broken(FeatureAugmentation):
            active = True

            def views(self, features, gradients, tail):
                yield View([features[0] * 1.01], 0.5)
                raise KeyError('no such thing')

        stock, ours = build(), build()
        batch = random_test_batch(stock)
        with (
            mmfeataug.attach(ours, [Broken(at=at, bn='frozen')]),
            pytest.raises(RuntimeError, match=f'broken failed at the tap {at}.*no such thing'),
        ):
            step(ours, batch)
        torch_stream = torch.rand(2)
        losses, _ = step(stock, batch)
        assert torch.equal(torch.rand(2), torch_stream)
        assert_same(buffers(ours), buffers(stock))
        again, _ = step(ours, batch)
        assert again.keys() == losses.keys()


class Poisoned(FeatureAugmentation):
    """One good view, then one with a single bad element."""

    active = True

    def __init__(self, at, value, learn='tail'):
        super().__init__(at=at, learn=learn)
        self.value, self.weight = value, 0.5

    def views(self, features, gradients, tail):
        yield View([f * 1.01 for f in features], self.weight)
        bad = features[0].clone()
        bad.view(-1)[0] = self.value
        yield View([bad, *features[1:]], self.weight)


class Good(Poisoned):
    def views(self, features, gradients, tail):
        yield View([f * 1.01 for f in features], self.weight)


@pytest.mark.parametrize(
    ('build', 'at', 'value', 'learn'),
    [
        *(
            (build_segmentor, 'backbone.layer3', value, learn)
            for value in (math.nan, math.inf)
            for learn in ('tail', 'network')
        ),
        (build_detector, 'backbone.layer2', math.nan, 'network'),
    ],
)
def test_bad_view_is_dropped_and_the_step_goes_on(build, at, value, learn, caplog):
    results = []
    for method in (Good(at, value, learn), Poisoned(at, value, learn)):
        model = build()
        batch = random_test_batch(model)
        with (
            mmfeataug.attach(model, [method]),
            caplog.at_level(logging.WARNING, 'mmfeataug'),
        ):
            losses, gradients = step(model, batch)
        results.append(gradients)
    assert float(losses['poisoned.dropped']) == 1
    assert float(losses['poisoned.loss_1']) == 0
    assert 'view poisoned.loss_1 is not finite' in caplog.text
    assert relative_difference(*results) == 0
    assert all(g.isfinite().all() for g in results[1].values() if g is not None)


def test_dropped_view_teaches_no_batch_norm():
    """A view that passes the batch norms and breaks behind them leaves their statistics alone."""
    model, stock = build_detector(), build_detector()
    batch = random_test_batch(model)
    passes = itertools.count()
    model.backbone.layer4.register_forward_hook(
        lambda _, __, out: out * math.nan if next(passes) else None
    )
    with mmfeataug.attach(model, [Good('backbone.layer2', 0)]):
        losses, _ = step(model, batch)
    step(stock, batch)
    assert float(losses['good.dropped']) == 1
    assert_same(buffers(model), buffers(stock))


def test_box_without_area():
    """Its loss is infinite while the gradients are finite, as in stock; views go on."""
    stock, ours = build_detector(), build_detector()
    batch = random_test_batch(stock)
    gt = batch[1][0].gt_instances
    gt.bboxes[0, 2:] = gt.bboxes[0, :2]
    losses, gradients = step(stock, batch)
    with mmfeataug.attach(ours, [afan('backbone.layer2')], clean_weight=0.5):
        augmented, ours_gradients = step(ours, batch)
    assert all(g.isfinite().all() for g in gradients.values() if g is not None)
    assert all(g.isfinite().all() for g in ours_gradients.values() if g is not None)
    assert float(augmented['afan.dropped']) == 0
    expected = losses['loss_bbox'].detach() * 0.5
    assert not expected.isfinite()
    torch.testing.assert_close(augmented['loss_bbox'].detach(), expected, equal_nan=True)


class Helper:
    def __init__(self, inner=None):
        self.count, self.inner = 0, inner

    def up(self):
        self.count += 1


class Bank(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer('steps', torch.tensor(0))


class Slotted:
    __slots__ = ('count',)

    def __init__(self):
        self.count = 0


Pair = namedtuple('Pair', 'count name')


class Average(nn.Module):
    """Of another module, as teachers are; its batch norm has statistics of its own."""

    def __init__(self, of):
        super().__init__()
        self.module = copy.deepcopy(of).requires_grad_(False)
        self.register_buffer('steps', torch.tensor(0))

    def follow(self, of):
        self.steps += 1
        for mine, theirs in zip(self.module.parameters(), of.parameters(), strict=True):
            mine.data.lerp_(theirs.data, 0.1)


class Remembering(nn.Module):
    """A toy whose loss counts its calls in every place where losses keep things.

    Args:
        start: Call from which on it counts.
    """

    def __init__(self, start=0):
        super().__init__()
        self.stem, self.norm, self.head = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.calls, self.start = 0, start
        self.count, self.history, self.table = 0, [], {'count': 0}
        self._private, self._set, self.deque = {'count': 0}, set(), deque(maxlen=100)
        self.tuple, self.pair, self.array = (0,), Pair(0, 'a'), np.zeros(1)
        self.nested, self.by_name = Helper(Helper(Helper())), {'a': Helper(), 'b': [Helper()]}
        self.late, self.in_tuple, self.slotted = None, (Helper(),), Slotted()
        self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.replaced = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.register_buffer('buffer', torch.zeros(1))
        self.register_buffer('large', torch.zeros(2**18 + 1))
        self.tensor, self.tensors = torch.zeros(1), [torch.zeros(1)]
        self.random = np.random.default_rng(0)
        self.drawn = 0
        self.simple, self.bound = SimpleNamespace(count=0), Helper().up
        self.hidden = [Bank()]
        object.__setattr__(self, 'unregistered', Bank())
        self.teacher = Average(nn.Sequential(self.stem, self.norm))

    def counts(self):
        """By place."""
        hub = MessageHub.get_current_instance().log_scalars
        return {
            'attribute': self.count,
            'list': len(self.history),
            'dict': self.table['count'],
            'private dict': self._private['count'],
            'private set': len(self._set),
            'deque': len(self.deque),
            'tuple': self.tuple[0],
            'named tuple': self.pair.count,
            'array': int(self.array[0]),
            'nested helper': self.nested.inner.inner.count,
            'helper in a dict': self.by_name['a'].count,
            'helper in a list in a dict': self.by_name['b'][0].count,
            'helper in a tuple': self.in_tuple[0].count,
            'helper that is made late': getattr(self.late, 'count', 0),
            'slots': self.slotted.count,
            'frozen parameter': int(self.frozen),
            'replaced parameter': int(self.replaced),
            'buffer': int(self.buffer),
            'tensor': int(self.tensor),
            'tensor in a list': int(self.tensors[0]),
            'generator': self.drawn,
            'average': int(self.teacher.steps),
            'namespace': self.simple.count,
            'bound method': self.bound.__self__.count,
            'module in a list': int(self.hidden[0].steps),
            'module that is no part': int(self.unregistered.steps),
            'part that is made late': int(self.bank.steps) if hasattr(self, 'bank') else 0,
            'MessageHub': len(hub['remembered'].data[0]) if 'remembered' in hub else 0,
        }

    def loss(self, inputs, data_samples=None):
        self.calls += 1
        if self.calls > self.start:
            self.remember()
        self.teacher.module(inputs)
        out = self.head(self.norm(self.stem(inputs)).relu())
        return {'loss': (out - sum(self.counts().values())).square().mean()}

    def remember(self):
        number = len(self._set)
        self.count += 1
        self.history.append(float(number))
        self.deque.append(float(number))
        self.table['count'] += 1
        self._private['count'] += 1
        self._set.add(number)
        self.tuple, self.pair = (number + 1,), self.pair._replace(count=number + 1)
        self.array += 1
        if self.late is None:
            self.late = Helper()
        helpers = self.nested.inner.inner, self.by_name['a'], self.by_name['b'][0], self.late
        for helper in (*helpers, self.in_tuple[0], self.slotted):
            helper.count += 1
        self.simple.count += 1
        self.bound()
        if not hasattr(self, 'bank'):
            self.bank = Bank()
        for bank in (self.hidden[0], self.unregistered, self.bank):
            bank.steps += 1
        self.frozen.data += 1
        self.replaced = nn.Parameter(self.replaced.data + 1, requires_grad=False)
        self.buffer += 1
        self.large.data[3] += 1
        self.tensor = self.tensor + 1
        self.tensors[0] += 1
        self.random.random()
        self.drawn = DRAWS.index(self.random.bit_generator.state['state']['state'])
        self.teacher.follow(nn.Sequential(self.stem, self.norm))
        MessageHub.get_current_instance().update_scalar('remembered', 1.0)

    def parse_losses(self, losses):
        return sum(v.mean() for k, v in losses.items() if 'loss' in k), losses


def draws(count):
    """States of a generator after so many draws."""
    random = np.random.default_rng(0)
    for _ in range(count):
        yield random.bit_generator.state['state']['state']
        random.random()


DRAWS = list(draws(40))


@pytest.mark.parametrize('start', [0, 19])
@pytest.mark.parametrize('learn', ['tail', 'network'])
def test_state_of_losses_is_what_one_stock_call_leaves(learn, start):
    """In every plain form, from whichever iteration on, and replays start from what the clean call
    started from.
    """
    torch.manual_seed(0)
    stock = Remembering(start).train()
    ours = copy.deepcopy(stock)
    x, frozen = torch.randn(3, 4), ours.frozen
    view = dict(at='stem', learn=learn, bn='frozen', weight=0.25)
    for model, entries in ((stock, []), (ours, [Unmoved(**view), Unmoved(**view)])):
        MessageHub.get_current_instance().log_scalars.pop('remembered', None)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        weight = 0.5 if entries else 1.0
        with mmfeataug.attach(model, entries, clean_weight=weight, strict=True):
            for number in range(1, 31):
                losses, _ = step(model, (x,))
                optimizer.step()
                counts = model.counts()
                assert counts == dict.fromkeys(counts, max(number - start, 0))
                assert int(model.large[3]) == max(number - start, 0)
                views = [float(v) for k, v in losses.items() if '.loss_' in k]
                # An unmoved view has the clean loss, times its weight.
                assert views == pytest.approx([float(losses['loss']) / 2] * len(entries))
    assert ours.frozen is frozen
    if learn == 'network':
        # Such views make the stock step.
        assert_same(ours.teacher, stock.teacher)
