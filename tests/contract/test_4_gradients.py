# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 4: gradients are right, by a property and by a reference that share no code with the
engine."""

import copy

import pytest
import torch
from torch import nn

import mmfeataug
from mmfeataug.engine import AuxiliaryNorms, Plan, norms_behind
from tests import reference
from tests.contract.cases import (
    ALL_TAPS,
    ALL_TAPS_AND_LEARN,
    EACH_TASK,
    LEARN,
    afan,
    deeplab_r50,
    faster_rcnn_frozen,
    faster_rcnn_swin,
)
from tests.models import build_detector, build_segmentor, step
from tests.oracle import Unmoved, difference, double, double_precision, held_against_reference

CLEAN = 0.25


@pytest.fixture(autouse=True)
def _double():
    with double_precision():
        yield


@ALL_TAPS
def test_unmoved_view(build, at, side):
    """With clean weight c and a view of weight 1 - c that is the clean feature and teaches the
    network: the stock gradient."""
    model, batch = double(build)
    stock = reference.clean_pass(model, batch, [(at, side)])
    ours = copy.deepcopy(model)
    view = Unmoved(at=at, side=side, weight=1 - CLEAN, learn='network', bn='frozen')
    with mmfeataug.attach(ours, [view], clean_weight=CLEAN, strict=True):
        losses, gradients = step(ours, batch)
    assert torch.equal(losses['unmoved.loss_0'], (1 - CLEAN) * stock.total)
    assert difference(gradients, stock.gradients) < 1e-9


@pytest.mark.parametrize(
    ('build', 'at', 'before'),
    [
        (build_segmentor, 'backbone.layer2', ('backbone.conv1.', 'backbone.layer1.')),
        (build_detector, 'backbone', ('backbone.',)),
    ],
)
def test_shares_of_an_unmoved_view(build, at, before):
    """What teaches the tail, in plain numbers: c before the tap, 1 behind it."""
    model, batch = double(build)
    stock = reference.clean_pass(model, batch).gradients
    view = Unmoved(at=at, weight=1 - CLEAN, bn='frozen')
    with mmfeataug.attach(model, [view], clean_weight=CLEAN, strict=True):
        _, gradients = step(model, batch)
    largest = max(float(g.abs().max()) for g in stock.values() if g is not None)
    for name, g in stock.items():
        if g is None or g.abs().max() < 1e-9 * largest:
            continue
        inside = name.startswith(before) or (at == 'backbone.layer2' and f'{at}.' in name)
        inside |= name.startswith('backbone.bn1.')
        torch.testing.assert_close(gradients[name], (CLEAN if inside else 1) * g)


@ALL_TAPS_AND_LEARN
def test_moved_views(build, at, side, learn):
    model, batch = double(build)
    held_against_reference(model, [afan(at, side, learn=learn)], batch)


@pytest.mark.parametrize('learn', ['tail', 'network'])
@pytest.mark.parametrize(
    'settings', [dict(bn='eval'), dict(steps=3, eps=0.03, random_start=True)], ids=str
)
@EACH_TASK
def test_settings(build, at, settings, learn):
    model, batch = double(build)
    entry = afan(at, strengths=(1.0,), weight=0.5, learn=learn, **settings)
    held_against_reference(model, [entry], batch)


NESTED = {
    'segmentor': (
        build_segmentor,
        ['backbone.layer1', 'backbone.layer3', 'decode_head.bottleneck'],
    ),
    'r50': (deeplab_r50, ['backbone.layer1.1', 'backbone.layer2.0.conv2', 'backbone']),
    'detector': (
        build_detector,
        ['backbone.layer2', 'rpn_head.rpn_conv', 'roi_head.bbox_head.shared_fcs.1'],
    ),
    'swin': (faster_rcnn_swin, ['backbone.stages.0', 'backbone.stages.1.blocks.0.attn', 'neck']),
}


@pytest.mark.parametrize(
    ('name', 'learn'),
    [
        pytest.param(*(name, learn), marks=[pytest.mark.slow] * (learn != 'mixed'))
        for name in NESTED
        for learn in (*LEARN, 'mixed')
    ],
)
def test_several_taps(name, learn):
    """Also nested ones, in any order, each with views that teach something else."""
    build, paths = NESTED[name]
    model, batch = double(build)
    mixed = dict(zip(paths, ('network', 'skips', 'tail'), strict=True))
    entries = [
        afan(at, strengths=(1.0,), weight=0.2, learn=mixed[at] if learn == 'mixed' else learn)
        for at in reversed(paths)
    ]
    held_against_reference(model, entries, batch)


def test_members_of_one_tap_may_differ():
    model, batch = double(build_segmentor)
    entries = [afan('backbone.layer3', learn=learn) for learn in LEARN]
    losses, _ = held_against_reference(model, entries, batch)
    assert {k for k in losses if 'afan' in k and 'loss' in k} == {
        f'{name}.loss_{i}' for name in ('afan', 'afan2', 'afan3') for i in (0, 1)
    }


class Loop(nn.Module):
    """A module that is called in turn: the second feature depends on the first, and all on what
    runs between."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.step = nn.Linear(4, 4), nn.Linear(4, 4)
        self.between, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def loss(self, inputs, data_samples=None):
        x = self.stem(inputs).tanh()
        for _ in range(3):
            x = self.between(x + self.step(x).tanh()).tanh()
        return {'loss': (self.head(x) + self.head(inputs)).square().mean()}

    def parse_losses(self, losses):
        return sum(v.mean() for k, v in losses.items() if 'loss' in k), losses


@pytest.mark.parametrize('learn', LEARN)
def test_a_tap_that_fires_several_times(learn):
    batch = (torch.randn(3, 4, generator=torch.Generator().manual_seed(1)),)
    held_against_reference(Loop(), [afan('step', gamma=0.1, learn=learn)], batch)


@pytest.mark.parametrize('learn', LEARN)
def test_second_batch_norms(learn):
    """They learn from views alone, and what runs before the tap as it is told to."""
    model, batch = double(build_segmentor)
    AuxiliaryNorms(model, norms_behind(model, 'backbone.layer2'))
    entry = afan('backbone.layer2', bn='separate', learn=learn)
    _, gradients = held_against_reference(model, [entry], batch)
    assert gradients['aux_bn.backbone.layer4.1.bn1.weight'].any()


def test_frozen_stages_learn_nothing_and_cost_nothing(monkeypatch):
    model, batch = double(faster_rcnn_frozen)
    entry = afan('backbone.layer1', learn='network')
    _, gradients = held_against_reference(copy.deepcopy(model), [entry], batch)
    assert gradients['backbone.layer1.0.conv1.weight'] is None
    swept = []
    original = torch.autograd.grad

    def grad(*args, **kwargs):
        swept.append(1)
        return original(*args, **kwargs)

    with mmfeataug.attach(model, [entry], strict=True):
        step(model, batch)
        monkeypatch.setattr(torch.autograd, 'grad', grad)
        step(model, batch)
    # The clean gradient and one for each view; no sweep of what is frozen.
    assert len(swept) == 3


def test_accumulation():
    """Two augmented steps add up."""
    model, first = double(build_segmentor)
    entry = afan('backbone.layer2', bn='frozen', learn='network')
    batches = [first, (first[0].flip(0), first[1])]
    found = []
    for batch in batches:
        found.append(held_against_reference(copy.deepcopy(model), [entry], batch)[1])
    summed = {n: a if a is None else a + found[1][n] for n, a in found[0].items()}
    with mmfeataug.attach(model, [entry], clean_weight=CLEAN) as handle:
        for batch in batches:
            handle.plan = Plan(0)
            reference.seed()
            model.parse_losses(model.loss(*batch))[0].backward()
    assert difference({n: p.grad for n, p in model.named_parameters()}, summed) < 1e-9
