# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Known values, where other tests compare two runs of the engine with each other."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import mmfeataug
from mmfeataug.engine import (
    AuxiliaryNorms,
    BatchAugmentation,
    FeatureAugmentation,
    Plan,
    TapError,
    View,
)
from mmfeataug.engine.auxiliary import norm_pairs
from mmfeataug.engine.guards import other_weights
from mmfeataug.engine.views import perturbation_norms
from tests import reference

pytestmark = pytest.mark.methods

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))


class Toy(nn.Module):
    def __init__(self, factor=lambda: 1.0, stem=nn.Linear):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mid = stem(4, 4), nn.Linear(4, 4)
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.__dict__['factor'] = factor

    def loss(self, inputs, data_samples=None):
        out = self.head(self.norm(self.mid(self.stem(inputs))))
        return {'loss': out.square().mean() * self.factor()}

    def parse_losses(self, losses):
        return sum(v.mean() for k, v in losses.items() if 'loss' in k), losses


class Spy(FeatureAugmentation):
    """Keeps the gradients and one draw that it is given; evaluates the tail once."""

    active, weight = True, 0.5

    def views(self, features, gradients, tail):
        self.gradients = gradients
        self.draw = torch.rand((), generator=tail.generator)
        tail(features)
        yield View([f * 1.1 for f in features])


def test_an_inexact_replay_is_seen():
    """The stem tells the loss something that no module and no attribute holds."""
    told = [0.0]

    class Stem(nn.Linear):
        def forward(self, x):
            told[0] = 1.0
            return super().forward(x)

    def factor():
        now, told[0] = told[0], 2.0
        return now

    toy = Toy(factor, Stem)
    with (
        mmfeataug.attach(toy, [Spy(at='mid')]) as handle,
        pytest.warns(UserWarning, match='the loss differs from the clean one'),
    ):
        toy.loss(X)
    assert not handle.taps[0].memoize
    toy = Toy(factor, Stem)
    with (
        mmfeataug.attach(toy, [Spy(at='mid')], strict=True),
        pytest.raises(TapError, match='the loss differs'),
    ):
        toy.loss(X)


@pytest.mark.parametrize('in_place', [False, True])
@pytest.mark.parametrize('home', ['buffer', 'table'])
@pytest.mark.parametrize('learn', ['tail', 'network'])
def test_a_loss_that_keeps_what_it_multiplies_by(in_place, home, learn):
    """Each pass needs the average as it was when that pass ran: the clean graph the one behind the
    clean pass, the view the one before it."""

    class Average(Toy):
        def __init__(self):
            super().__init__()
            self.register_buffer('mean', torch.ones(6, 2))
            self.table = {'mean': torch.ones(6, 2)}

        def loss(self, inputs, data_samples=None):
            out = self.head(self.norm(self.mid(self.stem(inputs))))
            place = self._buffers if home == 'buffer' else self.table
            if in_place:
                place['mean'].mul_(0.5).add_(out.detach())
            else:
                place['mean'] = 0.5 * place['mean'] + out.detach()
            return {'loss': (out.square() * place['mean']).mean()}

    stock, ours = Average(), Average()
    for _ in range(2):
        before = copy.deepcopy(ours)
        with mmfeataug.attach(ours, [Spy(at='mid', learn=learn)], clean_weight=1.0):
            ours.zero_grad()
            ours.parse_losses(ours.loss(X))[0].backward()
        clean = reference.clean_pass(before, (X,), [('mid', 'output')])
        (feature,) = clean.features['mid', 'output']
        view = reference.SeenView('mid', [feature * 1.1], 0.5, learn)
        # The view's pass starts from the state before the clean one.
        _, _, of_view = reference.view_pass(before, (X,), view, [0])
        for name, parameter in ours.named_parameters():
            expected = clean.gradients[name]
            if of_view[name] is not None:
                expected = expected + 0.5 * of_view[name]
            torch.testing.assert_close(parameter.grad, expected)
        stock.loss(X)
        torch.testing.assert_close(ours.mean, stock.mean)
        torch.testing.assert_close(ours.table['mean'], stock.table['mean'])


@pytest.mark.parametrize('size', [1e-7, 2e-6])
def test_noise_is_no_fault_of_the_tap(size):
    """Random noise, as of kernels that are not bit-stable, in 100 models."""
    for seed in range(100):
        random = np.random.default_rng(seed)
        toy = Toy(lambda random=random: 1 + size * random.normal())
        with mmfeataug.attach(toy, [Spy(at='mid')], strict=True) as handle:
            toy.loss(X)
        assert handle.taps[0].memoize


@pytest.mark.parametrize('step', [1e-5, -0.3])
def test_drift_is_no_noise(step):
    """A state outside of the model, that each call moves on."""
    told = []
    toy = Toy(lambda: told.append(1) or 2 + step * len(told))
    with (
        mmfeataug.attach(toy, [Spy(at='mid')]),
        pytest.raises(TapError, match=r'moves on each time.*loss: .*global variable'),
    ):
        toy.loss(X)


def test_exactness_is_looked_at_again():
    """A loss that begins late to read what nobody puts back."""
    told = []
    toy = Toy(lambda: told.append(1) or 1 + 0.1 * max(len(told) - 80, 0))
    with mmfeataug.attach(toy, [Spy(at='mid')]) as handle:
        for _ in range(30):
            toy.loss(X)
        assert handle.taps[0].memoize
        with pytest.raises(TapError, match='moves on each time'):
            toy.loss(X)


def test_what_repeats_itself_but_not_the_clean_pass_is_no_noise():
    """A state that nobody restores: both kinds of replay are wrong, by the same."""
    told = []
    toy = Toy(lambda: told.append(1) or 1 + 0.1 * (len(told) > 1))
    with (
        mmfeataug.attach(toy, [Spy(at='mid')], strict=True),
        pytest.raises(TapError, match='not exact'),
    ):
        toy.loss(X)


def test_weights_seeds_and_scales():
    losses, slopes, draws = [], [], []
    for ramp, clean_weight, seed in ((1.0, 1.0, 0), (0.25, 1.0, 1), (1.0, 0.25, 0)):
        toy, spy = Toy(), Spy(at='mid')
        with mmfeataug.attach(toy, [spy], clean_weight=clean_weight, seed=seed) as handle:
            handle.plan = Plan(ramp=ramp)
            losses.append({k: float(v) for k, v in toy.loss(X).items()})
        slopes.append(spy.gradients[0])
        draws.append(spy.draw)
    assert losses[1]['spy.loss_0'] == pytest.approx(losses[0]['spy.loss_0'] / 4)
    assert losses[2]['spy.loss_0'] == pytest.approx(losses[0]['spy.loss_0'])
    assert losses[2]['loss'] == pytest.approx(losses[0]['loss'] / 4)
    torch.testing.assert_close(slopes[0], slopes[2])
    assert draws[0] == draws[2] != draws[1]


@pytest.mark.parametrize(
    ('bn', 'attack_bn', 'second', 'training', 'drops'),
    [
        ('shared', 'frozen', [False] * 3, [True] * 3, [True] * 3),
        ('shared', 'eval', [False] * 3, [True, False, True], [True, False, True]),
        ('eval', 'eval', [False] * 3, [True, False, False], [True, False, True]),
        ('separate', 'frozen', [False, True, True], [True] * 3, [True] * 3),
        ('separate', 'eval', [False, True, True], [True, False, True], [True, False, True]),
    ],
)
def test_layers_of_each_pass(bn, attack_bn, second, training, drops):
    """The clean one, the attack's and the view's. AdvBN's is the last of these."""
    toy, seen = Toy(), []
    toy.head = nn.Sequential(nn.Dropout(0.5), toy.head)
    if bn == 'separate':
        AuxiliaryNorms(toy, ['norm'])
    others = [other for _, other in norm_pairs(toy)]
    spy, dropping = Spy(at='mid', bn=bn), []
    spy.attack_bn = attack_bn
    with mmfeataug.attach(toy, [spy]):
        toy.loss(X)  # verified in here
        toy.norm.register_forward_pre_hook(
            lambda norm, _: seen.append(
                (any(norm.weight is other.weight for other in others), norm.training)
            )
        )
        toy.head[0].register_forward_pre_hook(lambda layer, _: dropping.append(layer.training))
        toy.loss(X)
    assert [weights for weights, _ in seen] == second
    assert [mode for _, mode in seen] == training
    assert dropping == drops
    assert toy.head[0].training


@pytest.mark.parametrize('bad', [0, 1])
def test_bad_term_teaches_nothing(bad):
    """Nor does it take away what a good one taught."""

    class Terms(BatchAugmentation):
        active = True

        def losses(self, inputs, clean, network, generator):
            for i in range(2):
                _, loss = network(inputs * 1.1, loss=True)
                yield loss * (math.nan if i == bad else 1)

    toy = Toy()
    with mmfeataug.attach(toy, [Terms(at='mid', bn='shared')]):
        losses = toy.loss(X)
    assert losses['terms.dropped'] == 1
    assert int(toy.norm.num_batches_tracked) == 2


def test_other_weights_have_buffers_too():
    toy, teacher = Toy(), Toy()
    teacher.norm.running_mean.fill_(3.0)
    with other_weights(toy, teacher.state_dict()):
        assert toy.norm.running_mean.eq(3).all()
    assert not toy.norm.running_mean.any()


def test_norms_of_a_perturbation():
    view = torch.tensor([3.0, 0, 0, -4, 0, 0, 0, 0]).view(2, 2, 1, 2)
    norms = perturbation_norms([torch.zeros_like(view)], [view])
    assert {k: float(v) for k, v in norms.items()} == {'linf': 4.0, 'l2': 2.5, 'shift': 0.875}
