# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""L-ALFA: strengths of several layers are learnt and sum to 1."""

import copy

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn
from torch.nn import functional as F

import mmfeataug
from mmfeataug.engine import stock_state_dict
from mmfeataug.methods import AFAN, LALFA
from mmfeataug.models import declare
from tests import reference
from tests.models import (
    build_segmentor,
    deeplab_cfg,
    random_test_batch,
    step,
)
from tests.oracle import difference, double, double_precision, seen_views

RATE = 0.25
LAYERS = ('backbone.layer2', 'backbone.layer3', 'backbone.layer4')
ENTRIES = [
    dict(type='mmfeataug.LALFA', at=at, gamma=0.05, steps=1, weight=0.5 / 3) for at in LAYERS
]


def build():
    cfg = deeplab_cfg()
    model = build_segmentor(
        dict(cfg, type='mmfeataug.AugmentedModel', of=cfg['type'], augmentations=ENTRIES)
    )
    for module in model.modules():
        if isinstance(module, (torch.nn.Dropout, torch.nn.Dropout2d)):
            module.p = 0.0
    return model


def run(model):
    with mmfeataug.attach(model, ENTRIES, clean_weight=0.5) as handle:
        losses, found = step(model, random_test_batch(model))
        strengths = [float(m.strength) for tap in handle.taps for _, m in tap.members]
    return losses, found, strengths


def raw(at):
    return f'feature_aug.strength_{at.replace(".", "_")}.raw'


def test_strengths_begin_equal_and_stay_on_their_sum():
    model = build()
    parameters = dict(model.named_parameters())
    _, found, strengths = run(model)
    assert strengths == pytest.approx([1 / 3] * 3)
    with torch.no_grad():
        for at in LAYERS:
            parameters[raw(at)] -= 0.3 * found[raw(at)] / found[raw(at)].abs()
    _, _, strengths = run(model)
    assert sum(strengths) == pytest.approx(1)
    assert len({round(s, 6) for s in strengths}) > 1


def test_gradients_are_the_chain_rule_by_hand(monkeypatch):
    """Slope of a view's loss along its own perturbation; less the mean, because the sum is kept."""
    slopes = {}

    def spied(self, features, gradients, tail):
        (adversarial,) = AFAN.views(self, features, gradients, tail)
        for view in whole(self, features, gradients, tail):
            _, toward = tail([f.detach() for f in view.features])
            moves = [a - f for f, a in zip(features, adversarial.features, strict=True)]
            products = [(g * m).sum() for g, m in zip(toward, moves, strict=True)]
            slopes[self.at] = self.weights[0] * float(sum(products))
            yield view

    whole = LALFA.views
    monkeypatch.setattr(LALFA, 'views', spied)
    _, found, _ = run(build())
    mean = sum(slopes.values()) / 3
    for at in LAYERS:
        assert float(found[raw(at)]) == pytest.approx(slopes[at] - mean, rel=1e-3)
    assert max(map(abs, slopes.values())) > 1e-5


@pytest.mark.parametrize('learn', ['tail', 'network'])
def test_gradients_are_those_of_the_reference(learn):
    """Of all but the strengths, which the views are made of."""
    with double_precision():
        model, batch = double(build)
        before = copy.deepcopy(model)
        entries = [{**entry, 'learn': learn} for entry in ENTRIES]
        with mmfeataug.attach(model, entries, clean_weight=0.5) as handle:
            seen = {
                n: seen_views(a, handle.view_weights[n]) for n, a in handle.augmentations.items()
            }
            losses, gradients = step(model, batch)
        views = [view for found in seen.values() for view in found]
        values, expected = reference.expected(before, batch, 0.5, views)
    assert all(gradients[raw(at)] is not None for at in LAYERS)
    torch.testing.assert_close(
        torch.stack([losses[f'{n}.loss_0'] for n in seen]), torch.stack(values)
    )
    network = {n: None if n.startswith('feature_aug.') else g for n, g in gradients.items()}
    assert difference(network, expected) < 1e-7
    assert not any(v.requires_grad for k, v in losses.items() if k.endswith('linf'))


class Chain(BaseModel):
    """Three layers and a classifier."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.head = nn.Linear(6, 4)
        self.double()

    def forward(self, inputs, data_samples=None, mode='loss'):
        return self.loss(inputs, data_samples)

    def loss(self, inputs, data_samples):
        for layer in self.layers:
            inputs = layer(inputs).tanh()
        return dict(loss=F.cross_entropy(self.head(inputs), data_samples))


def published_rule(x, y, l1, batches, lr, gamma=0.2, momentum=0.9):
    """Strengths after equal batches, by plain autograd: an attack of one step at each place, a
    gradient step with momentum on (clean + mean of the views) / 2 + l1 * |w|, then the sum is put
    back to 1 by taking the same from each."""
    net, w, velocity = Chain(), torch.full((3,), 1 / 3).double(), torch.zeros(3).double()

    def behind(place, feature):
        feature = feature.tanh()
        for layer in net.layers[place + 1 :]:
            feature = layer(feature).tanh()
        return F.cross_entropy(net.head(feature), y)

    feature, pairs = x, []
    for place, layer in enumerate(net.layers):
        clean = layer(feature).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(behind(place, clean), clean)
        pairs.append((clean.detach(), gamma * gradient.sign()))
        feature = clean.tanh()
    for _ in range(batches):
        w = w.detach().requires_grad_()
        views = [behind(i, clean + w[i] * move) for i, (clean, move) in enumerate(pairs)]
        loss = sum(views) / 3 / 2 + l1 * w.abs().sum()
        velocity = momentum * velocity + torch.autograd.grad(loss, w)[0]
        w = w.detach() - lr * velocity
        w = w - (w.sum() - 1) / 3
    return w.detach()


@pytest.mark.parametrize('l1', [0.0, 1.0])
def test_strengths_follow_the_published_rule(l1):
    """Without the norm one becomes negative within 20 batches, with it that is pushed back."""
    torch.manual_seed(1)
    batch = torch.randn(16, 6).double(), torch.randint(4, (16,))
    entries = [
        dict(type='mmfeataug.LALFA', at=f'layers.{i}', gamma=0.2, unit='absolute', steps=1)
        for i in range(3)
    ]
    if l1:
        entries.append(dict(type='mmfeataug.StrengthNorm', at='head', l1=l1))
    model = declare(Chain(), entries).double()
    names = [f'feature_aug.strength_layers_{i}.raw' for i in range(3)]
    raw = [dict(model.named_parameters())[n] for n in names]
    optimizer = torch.optim.SGD(raw, lr=RATE, momentum=0.9)
    with mmfeataug.attach(model, entries, clean_weight=0.5):
        for _ in range(20):
            before = torch.cat(raw).detach()
            losses, _ = step(model, batch)
            optimizer.step()
    found = torch.cat(raw).detach()
    found = 1 / 3 + found - found.mean()
    expected = published_rule(*batch, l1, 20, RATE)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert float(found.sum()) == pytest.approx(1)
    if l1:
        size = float((1 / 3 + before - before.mean()).abs().sum())
        assert float(losses['strength_norm.loss_0']) == pytest.approx(size, abs=1e-6)
    # Sizes sum to more than 1 if one is negative.
    assert float(found.abs().sum()) == pytest.approx(1.0 if l1 else 1.183, abs=1e-3)


def test_the_norm_needs_strengths():
    with pytest.raises(ValueError, match=r"StrengthNorm at 'backbone'.*no strengths"):
        mmfeataug.attach(build_segmentor(), [dict(type='StrengthNorm', at='backbone')])


def test_keys_are_stock_without_the_strengths():
    model = build()
    stock = build_segmentor(deeplab_cfg()).state_dict()
    assert stock_state_dict(model.state_dict()).keys() == stock.keys()


def test_refusals():
    model = build_segmentor()
    with pytest.raises(ValueError, match='AugmentedModel'):
        mmfeataug.attach(model, ENTRIES)
    with pytest.raises(TypeError, match='learns its strength'):
        mmfeataug.attach(model, [{**ENTRIES[0], 'strengths': (1.0,)}])


def test_a_random_direction_needs_the_number_of_steps():
    with pytest.raises(ValueError, match='set steps=1'):
        LALFA(at='x', direction='random')
    assert LALFA(at='x', direction='random', steps=1).steps == 1
