# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 7, mixed precision: a perturbation below the spacing of the narrow type is not lost.

On a segmentor: mmcv's RoIAlign has no bfloat16 kernel for CPUs, with or without the plugin.
"""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import mmfeataug
from mmfeataug.engine import View
from mmfeataug.engine.gradients import LossScale
from mmfeataug.methods import AFAN
from tests import reference
from tests.contract.cases import afan
from tests.models import HALF, build_segmentor, gradients, needs_half, random_test_batch
from tests.oracle import Unmoved, seen_views


def amp_step(dtype=torch.bfloat16, scale=1.0, at='backbone.layer3', **settings):
    model = build_segmentor()
    batch = random_test_batch(model)
    torch.manual_seed(3)
    with mmfeataug.attach(model, [afan(at, **settings)], clean_weight=0.5) as handle:
        with torch.autocast('cpu', dtype=dtype):
            losses = model.loss(*batch)
        (model.parse_losses(losses)[0] * scale).backward()
    return losses, gradients(model), handle.taps[0]


def test_large_perturbation_runs_narrow():
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*run in float32')
        losses, result, tap = amp_step(gamma=0.1)
    assert not tap.full_precision
    assert float(losses['afan.lost_by_cast']) < 0.5
    assert all(g.isfinite().all() for g in result.values() if g is not None)


def test_small_perturbation_runs_wide_and_says_so():
    with pytest.warns(UserWarning, match='keeps less than half .* its views run in float32'):
        losses, _, tap = amp_step(at='backbone.conv1', gamma=1e-5, strengths=(1.0,), weight=0.5)
    assert tap.full_precision
    assert float(losses['afan.lost_by_cast']) > 0.5
    assert float(losses['afan.linf']) == pytest.approx(1e-5, rel=0.3)


def test_taps_with_wide_views_are_verified_again():
    """In step 30, and in the first after a resume: the replay is as narrow as the clean pass."""
    method = dict(type='mmfeataug.AFAN', at='reg', unit='absolute', gamma=1e-7, weight=0.5)

    def one_step():
        with torch.autocast('cpu', dtype=torch.bfloat16):
            losses = model.loss(torch.ones(4, 8))
        model.parse_losses(losses)[0].backward()
        return losses

    model = Levels()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='.*run in float32')
        with mmfeataug.attach(model, [method], 0.5) as handle:
            lost = [float(one_step()['afan.lost_by_cast']) for _ in range(32)]
            (tap,), state = handle.taps, handle.state_dict()
    assert tap.full_precision
    assert tap.memoize
    assert lost[0] > 0.5
    assert not any(lost[1:])
    with mmfeataug.attach(model, [method], 0.5) as handle:
        handle.load_state_dict(state)
        assert float(one_step()['afan.dropped']) == 0
        assert handle.taps[0].full_precision
        assert handle.taps[0].memoize


@pytest.mark.parametrize('learn', ['tail', 'skips', 'network'])
@pytest.mark.parametrize('at', ['decode_head.c1_bottleneck.conv', 'decode_head.bottleneck.conv'])
def test_wide_views_meet_recorded_skips(at, learn):
    """Recorded results of the narrow type reach a tail that runs in float32; attack steps too."""
    with pytest.warns(UserWarning, match='run in float32'):
        losses, result, _ = amp_step(at=at, gamma=1e-7, steps=2, learn=learn)
    assert float(losses['afan.dropped']) == 0
    assert all(g.isfinite().all() for g in result.values() if g is not None)


class Louder(Unmoved):
    def views(self, features, gradients, tail):
        yield View([f * 1.1 for f in features], self.weight)


@pytest.mark.parametrize('learn', ['tail', 'skips', 'network'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, HALF])
def test_gradients_are_those_of_the_reference(dtype, learn):
    """Under the same autocast. In fp16 the engine brings a scale of its own against underflow,
    which the reference lacks."""
    model = build_segmentor()
    batch, before = random_test_batch(model), copy.deepcopy(model)
    method = Louder(at='backbone.layer3', weight=0.5, learn=learn)
    seen = seen_views(method, (0.5,))
    reference.seed()
    with mmfeataug.attach(model, [method], clean_weight=0.5):
        with torch.autocast('cpu', dtype=dtype):
            losses = model.loss(*batch)
        model.parse_losses(losses)[0].backward()
    with torch.autocast('cpu', dtype=dtype):
        _, expected = reference.expected(before, batch, 0.5, seen)
    kept = {n: g for n, g in gradients(model).items() if g is not None}
    ours, theirs = (
        torch.cat([found[n].float().flatten() for n in kept]) for found in (kept, expected)
    )
    assert torch.dist(ours, theirs) < (0.02 if dtype == torch.bfloat16 else 0.1) * theirs.norm()


class Levels(nn.Module):
    """A head that two levels share; its one layer runs before and behind the other's first call."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cls, self.reg = nn.Linear(8, 8), nn.Linear(8, 8)

    def loss(self, inputs, data_samples=None):
        found = [(self.cls(x), self.reg(x)) for x in (inputs, inputs * 2)]
        return {'loss': sum(c.square().mean() + r.square().mean() for c, r in found)}

    def parse_losses(self, losses):
        return sum(v.float() for k, v in losses.items() if 'loss' in k), losses


def test_casts_from_before_the_tap_are_not_used_behind_it():
    """PyTorch 2.1 keeps those that were made without a graph."""
    found = []
    for memoize in (True, False):
        model = Levels()
        with mmfeataug.attach(model, [Unmoved(at='reg', weight=0.5)], 0.5) as handle:
            handle.taps[0].memoize, handle.taps[0].verified = memoize, True
            with torch.autocast('cpu', dtype=torch.bfloat16):
                losses = model.loss(torch.randn(4, 8, generator=torch.Generator().manual_seed(1)))
            model.parse_losses(losses)[0].backward()
        assert losses['unmoved.dropped'] == 0
        found.append(gradients(model)['cls.weight'])
    assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


@needs_half
def test_an_overflow_halves_the_scale():
    """Otherwise the attack would stand still, its signs being those of NaN."""
    model = build_segmentor()
    batch = random_test_batch(model)
    with mmfeataug.attach(model, [afan('backbone.layer3')]) as handle:
        handle.load_state_dict(dict(loss_scale=2.0**40))
        with torch.autocast('cpu', dtype=torch.float16):
            model.loss(*batch)
        assert handle.state_dict()['loss_scale'] == 2.0**39


@needs_half
def test_an_overflow_of_an_attack_halves_the_scale():
    """Its view is dropped before it has gradients of its own."""
    model = build_segmentor()
    batch = random_test_batch(model)

    class Overflow(AFAN):
        def views(self, features, gradients, tail):
            tail.evaluate.args[0].recorded.scale = 2.0**60
            yield from super().views(features, gradients, tail)

    method = Overflow(at='backbone.layer3', steps=2)
    with mmfeataug.attach(model, [method]) as handle, torch.autocast('cpu', torch.float16):
        before = handle.state_dict()['loss_scale']
        losses = model.loss(*batch)
    assert losses['overflow.dropped'] == 1
    assert handle.state_dict()['loss_scale'] == before / 2


@needs_half
def test_fp16_is_scaled_inside_and_outside_alike():
    """The framework's scaler multiplies the loss; what it divides out again must be the plain
    gradient."""
    plain, scaled = amp_step(torch.float16)[1], amp_step(torch.float16, scale=1024.0)[1]
    for name, gradient in plain.items():
        if gradient is not None:
            assert torch.equal(scaled[name] / 1024.0, gradient)


def test_loss_scale_backs_off_and_recovers():
    scale = LossScale(start=16.0, patience=3)
    scale.update(finite=False)
    assert scale.value == 8.0
    for _ in range(3):
        scale.update(finite=True)
    assert scale.value == 16.0
