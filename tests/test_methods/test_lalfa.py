# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""L-ALFA: strengths of several layers are learnt and sum to 1."""

import copy

import pytest
import torch

import mmfeataug
from mmfeataug.engine import stock_state_dict
from mmfeataug.methods import AFAN, LALFA
from tests import reference
from tests.models import (
    build_segmentor,
    deeplab_cfg,
    random_test_batch,
    step,
)
from tests.oracle import difference, double, double_precision, seen_views

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
            slopes[self.at] = view.weight * float(sum(products))
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
            seen = {n: seen_views(a, a.weight) for n, a in handle.augmentations.items()}
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
