# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 2: off means off, bit for bit, and nothing extra is run."""

import pytest
import torch

import mmfeataug
from mmfeataug.engine import Plan
from tests.contract.cases import EACH_TASK, afan
from tests.contract.test_1_stock_outside import assert_same
from tests.models import buffers, build_detector, build_segmentor, random_test_batch, step


def train(model, batch, steps=2):
    """Losses and weights of a few optimizer steps, and how often the stem ran."""
    calls = []
    hook = model.backbone.register_forward_hook(lambda *_: calls.append(1))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    losses = []
    for i in range(steps):
        losses.append(step(model, batch, seed=i)[0])
        optimizer.step()
    hook.remove()
    return losses, dict(model.state_dict()), len(calls)


@pytest.mark.parametrize(
    ('build', 'at', 'off'),
    [
        (build_detector, 'backbone.layer2', dict(gamma=0.0)),
        (build_segmentor, 'backbone.layer3', dict(gamma=0.0)),
        (build_segmentor, 'backbone.layer3', 'enabled'),
        (build_segmentor, 'backbone.layer3', 'ramp'),
    ],
    ids=['detector', 'segmentor', 'enabled', 'ramp'],
)
def test_off_is_stock(build, at, off):
    stock, ours = build(), build()
    batch = random_test_batch(stock)
    expected = train(stock, batch)
    with mmfeataug.attach(
        ours, [afan(at, **off if isinstance(off, dict) else {})], clean_weight=0.5
    ) as handle:
        if off == 'enabled':
            handle.plan = Plan(enabled=False)
        elif off == 'ramp':
            handle.plan = Plan(ramp=0.0)
        result = train(ours, batch)
        assert not handle.was_active
    assert_same(result[0], expected[0])
    assert_same(result[1], expected[1])
    assert result[2] == expected[2]


def test_on_is_not_stock():
    """The test above can fail: with a view the weights differ."""
    stock, ours, at = build_segmentor(), build_segmentor(), 'backbone.layer3'
    batch = random_test_batch(stock)
    expected = train(stock, batch)
    with mmfeataug.attach(ours, [afan(at)], clean_weight=0.5):
        result = train(ours, batch)
    assert not torch.equal(
        result[1]['backbone.layer4.1.conv2.weight'], expected[1]['backbone.layer4.1.conv2.weight']
    )


@EACH_TASK
def test_no_gradients_is_stock(build, at):
    model = build()
    batch = random_test_batch(model)
    with mmfeataug.attach(model, [afan(at)]) as handle:
        with torch.no_grad():
            torch.manual_seed(0)
            losses = model.loss(*batch)
        assert not handle.was_active
        assert not any('afan' in key for key in losses)


@EACH_TASK
def test_random_streams_go_on_as_after_a_stock_call(build, at):
    stock, ours = build(), build()
    batch = random_test_batch(stock)
    step(stock, batch)
    expected = torch.rand(3)
    with mmfeataug.attach(ours, [afan(at)], clean_weight=0.5):
        step(ours, batch)
    assert torch.equal(torch.rand(3), expected)


def test_clean_losses_keep_their_names_and_values():
    from tests.models import build_detector

    stock, ours = build_detector(), build_detector()
    batch = random_test_batch(stock)
    expected, _ = step(stock, batch)
    with mmfeataug.attach(ours, [afan('backbone.layer2', bn='frozen')], clean_weight=0.25):
        losses, _ = step(ours, batch)
    for key, value in expected.items():
        if 'loss' in key:
            total = sum(v.mean() for v in ([value] if torch.is_tensor(value) else value))
            ours_total = sum(
                v.mean() for v in ([losses[key]] if torch.is_tensor(losses[key]) else losses[key])
            )
            torch.testing.assert_close(ours_total, total * 0.25)
        else:
            assert torch.equal(losses[key], value)
    assert sorted(k for k in losses if k not in expected) == [
        'afan.dropped',
        'afan.l2',
        'afan.linf',
        'afan.loss_0',
        'afan.loss_1',
        'afan.rise',
        'afan.shift',
        'afan.skipped',
        'feature_aug.loss',
    ]
    assert_same(buffers(ours), buffers(stock))
