# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 7, mixed precision: a perturbation below the spacing of the narrow type is not lost.

On a segmentor: mmcv's RoIAlign has no bfloat16 kernel for CPUs, with or without the plugin.
"""

import warnings

import pytest
import torch

import mmfeataug
from mmfeataug.engine.gradients import LossScale
from mmfeataug.methods import AFAN
from tests.contract.cases import afan
from tests.models import build_segmentor, gradients, random_test_batch, relative_difference


def amp_step(
    dtype=torch.bfloat16, scale=1.0, engine='precomputed', at='backbone.layer3', **settings
):
    model = build_segmentor()
    batch = random_test_batch(model)
    torch.manual_seed(3)
    with mmfeataug.attach(model, [afan(at, **settings)], clean_weight=0.5, engine=engine) as handle:
        with torch.autocast('cpu', dtype=dtype):
            losses = model.loss(*batch)
        (model.parse_losses(losses)[0] * scale).backward()
    return losses, gradients(model), handle._places[0]


def test_large_perturbation_runs_narrow():
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*run in float32')
        losses, result, place = amp_step(gamma=0.1)
    assert not place.full_precision
    assert float(losses['afan.lost_by_cast']) < 0.5
    assert all(g.isfinite().all() for g in result.values() if g is not None)


def test_small_perturbation_runs_wide_and_says_so():
    with pytest.warns(UserWarning, match='keeps only .* its views run in float32'):
        losses, _, place = amp_step(at='backbone.conv1', gamma=1e-5, strengths=(1.0,), weight=0.5)
    assert place.full_precision
    assert float(losses['afan.lost_by_cast']) > 0.5
    assert float(losses['afan.linf']) == pytest.approx(1e-5, rel=0.3)


@pytest.mark.parametrize('engine', ['precomputed', 'graph'])
@pytest.mark.parametrize('at', ['decode_head.c1_bottleneck.conv', 'decode_head.bottleneck.conv'])
def test_wide_views_meet_recorded_skips(at, engine):
    """Recorded results of the narrow type reach a tail that runs in float32; attack steps too."""
    with pytest.warns(UserWarning, match='run in float32'):
        losses, result, _ = amp_step(at=at, gamma=1e-7, steps=2, engine=engine)
    assert float(losses['afan.dropped']) == 0
    assert all(g.isfinite().all() for g in result.values() if g is not None)


@pytest.mark.parametrize(('dtype', 'scale'), [(torch.bfloat16, 1.0), (torch.float16, 2.0**16)])
def test_engines_agree(dtype, scale):
    """In fp16 the plain engine needs the framework's scaler against underflow, the other brings its
    own."""
    _, fast, _ = amp_step(dtype, gamma=0.1)
    _, plain, _ = amp_step(dtype, gamma=0.1, engine='graph', scale=scale)
    plain = {n: None if g is None else g / scale for n, g in plain.items()}
    assert relative_difference(fast, plain) < 5e-2


@pytest.mark.parametrize('engine', ['precomputed', 'graph'])
def test_an_overflow_halves_the_scale(engine):
    """Otherwise the attack would stand still, its signs being those of NaN."""
    model = build_segmentor()
    batch = random_test_batch(model)
    with mmfeataug.attach(model, [afan('backbone.layer3')], engine=engine) as handle:
        handle.load_state_dict(dict(loss_scale=2.0**40))
        with torch.autocast('cpu', dtype=torch.float16):
            model.loss(*batch)
        assert handle.state_dict()['loss_scale'] == 2.0**39


def test_an_overflow_of_an_attack_halves_the_scale():
    """Its view is dropped before it has gradients of its own."""
    model = build_segmentor()
    batch = random_test_batch(model)

    class Overflow(AFAN):
        def views(self, features, gradients, tail):
            tail.evaluate.func.__self__.scale = 2.0**60
            yield from super().views(features, gradients, tail)

    method = Overflow(at='backbone.layer3', steps=2)
    with mmfeataug.attach(model, [method]) as handle, torch.autocast('cpu', torch.float16):
        before = handle.state_dict()['loss_scale']
        losses = model.loss(*batch)
    assert losses['overflow.dropped'] == 1
    assert handle.state_dict()['loss_scale'] == before / 2


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
