# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 5: nothing is left behind by an attack, and what a view cannot use is dropped."""

import copy
import itertools
import logging
import math
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn

import mmfeataug
from mmfeataug.engine import FeatureAugmentation, View
from tests.contract.cases import EACH_TASK, afan
from tests.contract.test_1_stock_outside import assert_same
from tests.models import buffers, build_detector, random_test_batch, relative_difference, step


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

    def test_no_graph_on_the_model(self, build, at):
        model = build()
        batch = random_test_batch(model)
        with mmfeataug.attach(model, [afan(at)]):
            model.loss(*batch)
            copy.deepcopy(model)  # raises for a tensor inside a graph
        assert not [
            n for m in model.modules() for n in vars(m) if n in ('forward', 'loss_and_predict')
        ]

    @pytest.mark.parametrize('steps', [1, 3])
    @pytest.mark.parametrize(('bn', 'updates'), [('shared', 3), ('frozen', 1), ('eval', 1)])
    def test_batch_norm_policy(self, build, at, bn, updates, steps):
        """Layers behind the tap see the clean pass, and each of the two views if they share
        statistics; attack steps never count."""
        model = build()
        batch = random_test_batch(model)
        with mmfeataug.attach(model, [afan(at, bn=bn, steps=steps)]):
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


@pytest.mark.parametrize('learn', ['tail', 'network'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@EACH_TASK
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


Pair = namedtuple('Pair', 'count name')


class Remembering(nn.Module):
    """A toy whose loss counts its calls in every place where losses keep things."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.count, self.history, self.table = 0, [], {'count': 0}
        self._private, self._set = {'count': 0}, set()
        self.tuple, self.pair, self.array = (0,), Pair(0, 'a'), np.zeros(1)
        self.nested, self.by_name = Helper(Helper(Helper())), {'a': Helper(), 'b': [Helper()]}
        self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.register_buffer('buffer', torch.zeros(1))

    def counts(self):
        """By place."""
        return {
            'attribute': self.count,
            'list': len(self.history),
            'dict': self.table['count'],
            'private dict': self._private['count'],
            'private set': len(self._set),
            'tuple': self.tuple[0],
            'named tuple': self.pair.count,
            'array': int(self.array[0]),
            'nested helper': self.nested.inner.inner.count,
            'helper in a dict': self.by_name['a'].count,
            'helper in a list in a dict': self.by_name['b'][0].count,
            'frozen parameter': int(self.frozen),
            'buffer': int(self.buffer),
        }

    def loss(self, inputs, data_samples=None):
        out = self.head(self.stem(inputs).relu())
        number = len(self._set)
        self.count += 1
        self.history.append(float(number))
        self.table['count'] += 1
        self._private['count'] += 1
        self._set.add(number)
        self.tuple, self.pair = (number + 1,), self.pair._replace(count=number + 1)
        self.array += 1
        for helper in (self.nested.inner.inner, self.by_name['a'], self.by_name['b'][0]):
            helper.count += 1
        self.frozen.data += 1
        self.buffer += 1
        return {'loss': (out - sum(self.counts().values())).square().mean()}

    def parse_losses(self, losses):
        return sum(v.mean() for k, v in losses.items() if 'loss' in k), losses


@pytest.mark.parametrize('learn', ['tail', 'network'])
def test_state_of_losses_is_what_one_stock_call_leaves(learn):
    """In every plain form, and replays start from what the clean call started from."""
    torch.manual_seed(0)
    stock = Remembering().train()
    ours = copy.deepcopy(stock)
    x = torch.randn(3, 4)
    entry = afan('stem', gamma=0.1, learn=learn)
    frozen = ours.frozen
    with mmfeataug.attach(ours, [entry], strict=True):
        for number in range(1, 13):
            step(ours, (x,))
            step(stock, (x,))
            assert ours.counts() == stock.counts() == dict.fromkeys(stock.counts(), number)
    assert ours.frozen is frozen
