# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 9: a step computes the clean pass and K tails, nothing else; the clean graph is gone
before the views.

Time and memory themselves are measured by ``benchmarks/cost.py``.
"""

import gc
import weakref

import pytest
import torch
from torch import nn

import mmfeataug
from mmfeataug.engine import tail_shares
from tests.contract.cases import LEARN, afan
from tests.models import build_detector, build_segmentor, random_test_batch, step


@pytest.fixture
def convolutions(monkeypatch):
    """Every convolution that is really computed, by module."""
    computed = []
    original = nn.Conv2d._conv_forward

    def count(self, *args):
        computed.append(self)
        return original(self, *args)

    monkeypatch.setattr(nn.Conv2d, '_conv_forward', count)
    return computed


@pytest.mark.parametrize(
    ('build', 'at', 'learn', 'steps'),
    [
        (build_segmentor, 'backbone.layer3', 'tail', 1),
        *((build_segmentor, 'backbone.layer3', learn, 3) for learn in LEARN),
        (build_detector, 'backbone.layer2', 'network', 3),
    ],
)
def test_passes_are_counted(build, at, learn, steps, convolutions):
    model = build()
    batch = random_test_batch(model)
    reached = []
    hook = model.get_submodule(at).register_forward_hook(
        lambda *_: reached.append(len(convolutions))
    )
    step(model, batch)
    hook.remove()
    total, tail = len(convolutions), len(convolutions) - reached[0]
    with mmfeataug.attach(model, [afan(at, steps=steps, learn=learn)]):
        step(model, batch)  # checks the replay once
        convolutions.clear()
        step(model, batch)
    assert len(convolutions) == total + (2 + steps - 1) * tail


def test_roi_tap_repeats_no_proposals(monkeypatch):
    """Behind the RPN, a view does not run its loss and its NMS again."""
    model = build_detector()
    batch = random_test_batch(model)
    calls = []
    original = type(model.rpn_head).predict_by_feat
    monkeypatch.setattr(
        type(model.rpn_head),
        'predict_by_feat',
        lambda *a, **k: calls.append(1) or original(*a, **k),
    )
    with mmfeataug.attach(model, [afan('roi_head.bbox_head.shared_fcs.1')], strict=True):
        step(model, batch)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ('build', 'at'), [(build_segmentor, 'backbone.layer3'), (build_detector, 'backbone.layer2')]
)
def test_clean_graph_is_gone_before_the_views(build, at, monkeypatch):
    """Memory does not grow with the number of views: nothing saved for an earlier backward is alive
    at the next view."""
    model = build()
    batch = random_test_batch(model)
    alive, at_view = weakref.WeakSet(), []

    class Saved:
        def __init__(self, tensor):
            # Without its node, or an output would keep that alive, which saves it.
            self.tensor = tensor.detach()
            alive.add(self)

    handle = mmfeataug.attach(model, [afan(at, strengths=(0.2, 0.6), weight=0.2)])
    method = handle.taps[0].members[0][1]
    original = method.views

    def views(*args):
        for view in original(*args):
            gc.collect()
            at_view.append(len(alive))
            yield view

    monkeypatch.setattr(method, 'views', views)
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        model.loss(*batch)
    assert at_view == [0, 0]


def test_tail_shares_fall_along_the_network():
    model = build_detector()
    batch = random_test_batch(model)
    paths = [
        'backbone.conv1',
        'backbone.layer2',
        'backbone.layer4',
        'roi_head.bbox_head.shared_fcs.1',
    ]
    places = tail_shares(model, lambda: model.parse_losses(model.loss(*batch))[0], paths, repeats=3)
    shares = [places[p].share for p in paths]
    assert shares == sorted(shares, reverse=True)
    assert 0 < shares[-1] < shares[0] < 1
    assert places['backbone.layer2'].shapes == [(2, 32, 8, 8)]
    assert all(p.grad is None for p in model.parameters())
