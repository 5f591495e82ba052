# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The objective sums to 1, whoever says how much of it."""

from dataclasses import replace

import pytest
import torch

import mmfeataug
from mmfeataug.engine import (
    BatchAugmentation,
    Choice,
    FeatureAugmentation,
    FeatureTransform,
    Plan,
    View,
)
from mmfeataug.methods import AFAN
from tests import reference
from tests.models import build_segmentor, random_test_batch, step
from tests.oracle import Unmoved, difference
from tests.test_engine import test_aliases
from tests.test_engine.test_aliases import X


class Toy(test_aliases.Toy):
    def outputs(self, inputs):
        return (self.head(self.tap(self.mid(self.stem(inputs)))),)


def afan(**kwargs):
    return AFAN(at='stem', **kwargs)


class Drawn(FeatureAugmentation):
    """Makes its view in some iterations only."""

    active = True

    def __init__(self, there, **kwargs):
        super().__init__(at='stem', learn='network', **kwargs)
        self.there = there

    def views(self, features, gradients, tail):
        if self.there:
            yield View([f.clone() for f in features])


@pytest.mark.parametrize(
    ('methods', 'said', 'objective'),
    [
        ([afan()], None, '0.50 clean + 0.50 afan = 1.00'),
        ([afan(strengths=(0.5, 1.0))], None, '0.50 clean + 2 x 0.25 afan = 1.00'),
        (
            [afan(strengths=(0.5, 1.0)), afan()],
            None,
            '0.50 clean + 2 x 0.17 afan + 0.17 afan2 = 1.00',
        ),
        ([afan(weight=0.3)], None, '0.70 clean + 0.30 afan = 1.00'),
        ([afan(weight=0.2), afan()], None, '0.40 clean + 0.20 afan + 0.40 afan2 = 1.00'),
        ([afan()], 0.7, '0.70 clean + 0.30 afan = 1.00'),
        ([afan(weight=1.0)], 1.0, '1.00 clean + 1.00 afan = 2.00'),
        (
            [afan(weight=(0.2, None), strengths=(0.5, 1.0))],
            None,
            '0.40 clean + 0.20 afan + 0.40 afan = 1.00',
        ),
        # What does not act takes nothing.
        ([afan(), afan(weight=0.0)], None, '0.50 clean + 0.50 afan = 1.00'),
        ([AFAN(at='stem', gamma=0.0)], None, '1.00 clean = 1.00'),
        ([], None, '1.00 clean = 1.00'),
    ],
)
def test_shares(methods, said, objective):
    with mmfeataug.attach(Toy(), methods, clean_weight=said) as handle:
        assert handle.objective == f'objective = {objective}'


@pytest.mark.parametrize(
    ('methods', 'said', 'message'),
    [
        (
            [afan(weight=0.5, strengths=(0.5, 1.0))],
            None,
            r'sum to 1 \(afan: 0.5 \+ 0.5\).* such as clean_weight=1.0',
        ),
        ([afan(weight=0.9), afan(weight=0.3)], None, r'sum to 1.2 \(afan: 0.9, afan2: 0.3\)'),
        ([afan()], 1.0, r'clean_weight=1 leave nothing .* \(afan\): say their weight='),
        ([afan(weight=0.6), afan()], 0.4, r'clean_weight=0.4 and weights \(afan: 0.6\)'),
    ],
)
def test_refusals(methods, said, message):
    with pytest.raises(ValueError, match=message):
        mmfeataug.attach(Toy(), methods, clean_weight=said)


@pytest.mark.parametrize('ramp', [0.25, 1.0])
@pytest.mark.parametrize('there', [(True, True), (True, False), (False, False)])
def test_what_is_missing_goes_to_the_rest(there, ramp):
    """With unmoved views the gradient is stock, however many there are."""
    stock = reference.clean_pass(Toy(), (X,)).gradients
    with mmfeataug.attach(model := Toy(), [Drawn(t) for t in there]) as handle:
        handle.plan = Plan(ramp=ramp)
        losses, found = step(model, (X,))
    assert difference(found, stock) < 1e-9
    total = sum(v for k, v in losses.items() if 'loss' in k and k != 'feature_aug.loss')
    assert total.item() == pytest.approx(Toy().loss(X)['loss'].item())
    clean = handle.outcome.clean_weight
    assert clean == pytest.approx((1 - ramp * 0.5) / (1 - ramp * 0.25 * there.count(False)))


def test_a_clean_weight_that_is_said_holds_without_views():
    stock = reference.clean_pass(Toy(), (X,)).gradients
    with mmfeataug.attach(model := Toy(), [Drawn(False)], clean_weight=0.25):
        _, found = step(model, (X,))
    quarter = {n: None if g is None else g / 4 for n, g in stock.items()}
    assert difference(found, quarter) < 1e-9


def test_iterations_without_views_are_stock():
    with mmfeataug.attach(model := Toy(), [afan()]) as handle:
        handle.plan = Plan(enabled=False)
        losses, found = step(model, (X,))
    assert difference(found, step(Toy(), (X,))[1]) == 0
    assert handle.outcome.clean_weight == 1
    assert list(losses) == ['loss']


def test_terms_come_on_top():
    """Their objective is the clean loss and a term; what views lack is none of theirs."""
    term = dict(type='FMA', at='backbone.layer1', weight=0.5)
    batch, values = random_test_batch(build_segmentor()), []
    rare = dict(type='DSU', at='backbone.layer2', as_view=True, prob=1e-9)
    for entries in ([term], [rare, term]):
        with mmfeataug.attach(model := build_segmentor(), entries) as handle:
            losses, gradients = step(model, batch)
        assert handle.outcome.clean_weight == pytest.approx(1.0)
        values.append((losses, gradients))
    assert handle.objective == ('objective = 0.50 clean + 0.50 dsu = 1.00, and the terms of fma')
    (alone, expected), (beside, found) = values
    torch.testing.assert_close(beside['fma.loss_0'], alone['fma.loss_0'])
    assert difference(found, expected) < 1e-4


@pytest.mark.parametrize(
    ('only', 'view'), [(Choice('afan', 0, 3.0), 1.5), (Choice('term', 0, 3.0), 0.0)]
)
def test_one_of_views_and_terms(only, view):
    """The one that is drawn stands for all, so that each counts its weight on average: the clean
    loss keeps its own.
    """

    class Term(BatchAugmentation):
        active = True

        def losses(self, inputs, clean, network, generator):
            (features,) = network(inputs)
            yield features.square().mean()

    with mmfeataug.attach(model := Toy(), [afan(gamma=1e-30), Term(at='stem')]) as handle:
        handle.plan = Plan(only=only)
        losses = model.loss(X)
    assert handle.outcome.clean_weight == pytest.approx(0.5)
    clean = Toy().loss(X)['loss']
    assert float(losses.get('afan.loss_0', 0)) == pytest.approx(view * float(clean), rel=1e-4)


def test_layers_beside_views_do_not_count():
    class Double(FeatureTransform):
        def transform(self, feature):
            return 2 * feature

    with mmfeataug.attach(model := Toy(), [Double(at='mid'), afan()]) as handle:
        for views in (True, False, True):
            handle.plan = replace(handle.plan, views=views)
            model.loss(X)
        assert handle.was_active
    assert handle.step_count == 2
    with mmfeataug.attach(model := Toy(), [Double(at='mid')]) as handle:
        model.loss(X)
    assert handle.step_count == 1


def test_a_view_needs_a_weight():
    class Two(Unmoved):
        def views(self, features, gradients, tail):
            yield View(features)
            yield View(features)

    view = Two(at='stem', weight=0.5)
    with (
        mmfeataug.attach(model := Toy(), [view]),
        pytest.raises(RuntimeError, match=r'view 1 has no weight: self\.weight has 1'),
    ):
        model.loss(X)


def test_rise_and_effects():
    with mmfeataug.attach(model := Toy(), [afan(strengths=(0.5, 1.0))]) as handle:
        losses = model.loss(X)
        assert not handle.outcome.effects
        handle.plan = Plan(measure=True)
        model.loss(X)
    rows = handle.outcome.effects['afan']
    clean = Toy().loss(X)['loss'].item()
    assert rows[:, 0].tolist() == pytest.approx([0.125, 0.25], rel=1e-3)
    assert rows[:, 2].tolist() == pytest.approx([clean] * 2)
    seen = [float(losses[f'afan.loss_{i}']) / 0.25 for i in range(2)]
    assert rows[:, 1].tolist() == pytest.approx(seen)
    assert float(losses['afan.rise']) == pytest.approx(max(seen) - clean, rel=1e-4)
