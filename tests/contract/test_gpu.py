# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What a GPU could do otherwise: contracts 2, 3, 4, 5, 7 and 9. ``pytest -m gpu`` runs these on
one; ``--device cpu`` tries the same code without.
"""

import copy
from functools import partial

import pytest
import torch
from torch import distributed

import mmfeataug
from mmfeataug.engine import Plan
from tests import reference
from tests.contract.cases import afan
from tests.models import (
    buffers,
    build_detector,
    build_segmentor,
    gradients,
    half_on_cpu,
    random_test_batch,
    step,
)
from tests.oracle import Unmoved, difference, double, double_precision

pytestmark = pytest.mark.gpu
EACH = pytest.mark.parametrize(
    ('build', 'at'), [(build_detector, 'backbone.layer2'), (build_segmentor, 'backbone.layer3')]
)


@pytest.fixture
def only_on_gpu(device):
    if device == 'cpu':
        pytest.skip('a CPU has no such thing')


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch):
    """Not the shorter products that a GPU takes by itself."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


@pytest.fixture
def made(device):
    """A model on the device, and a batch there."""

    def make(build):
        model = build().to(device)
        return model, random_test_batch(model)

    return make


@pytest.fixture
def exact(device):
    """Both in double precision."""

    def make(build):
        model, (inputs, samples) = double(build)
        return model.to(device), (inputs.to(device), [s.to(device) for s in samples])

    with double_precision():
        yield make


@pytest.mark.slow
@EACH
def test_off_is_stock(build, at, made):
    """Contract 2: the same losses to the last bit, and no pass more."""
    model, batch = made(build)
    expected, _ = step(copy.deepcopy(model), batch)
    passes = []
    model.backbone.register_forward_hook(lambda *_: passes.append(1))
    with mmfeataug.attach(model, [afan(at)]) as handle:
        handle.plan = Plan(enabled=False)
        losses, _ = step(model, batch)
    assert len(passes) == 1
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        for ours, theirs in zip(flat(losses[key]), flat(value), strict=True):
            assert torch.equal(ours, theirs)


def flat(value):
    return value if isinstance(value, list) else [value]


@pytest.mark.slow
@EACH
def test_replay_is_exact(build, at, exact):
    """Contract 3."""
    model, batch = exact(build)
    found = []
    for memoize in (True, False):
        ours = copy.deepcopy(model)
        with mmfeataug.attach(ours, [afan(at)], clean_weight=0.5, strict=True) as handle:
            if not memoize:
                handle.taps[0].memoize, handle.taps[0].verified = False, True
            losses, grads = step(ours, batch)
            assert handle.taps[0].memoize is memoize
        found.append((torch.stack([v for k, v in losses.items() if 'afan.loss' in k]), grads))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-9, atol=0)
    assert difference(found[0][1], found[1][1]) < 1e-7


@pytest.mark.parametrize(
    'layout',
    [
        pytest.param(torch.contiguous_format, marks=pytest.mark.slow, id='contiguous'),
        pytest.param(torch.channels_last, id='channels-last'),
    ],
)
@pytest.mark.parametrize('learn', ['tail', 'network'])
@EACH
def test_unmoved_view(build, at, learn, layout, exact):
    """Contract 4, and channels-last of contract 7."""
    model, batch = exact(build)
    model.to(memory_format=layout)
    batch = batch[0].contiguous(memory_format=layout), batch[1]
    _, stock = step(copy.deepcopy(model), batch)
    view = Unmoved(at=at, weight=0.75, learn=learn, bn='frozen')
    with mmfeataug.attach(model, [view], clean_weight=0.25, strict=True):
        _, ours = step(model, batch)
    before = tuple(f'backbone.{part}' for part in ('conv1', 'bn1', 'layer1', at.split('.')[-1]))
    before += ('backbone.layer2',) * (at == 'backbone.layer3')
    shared = 0.25 if learn == 'tail' else 1
    right = {
        n: g if g is None else (shared if n.startswith(before) else 1) * g for n, g in stock.items()
    }
    if build is build_segmentor:
        # What passes the tap by teaches layer1 from views as well.
        kept = [n for n in ours if learn == 'network' or not n.startswith(before[:3])]
        ours, right = ({n: each[n] for n in kept} for each in (ours, right))
    assert difference(ours, right) < 1e-7


@EACH
def test_nothing_is_left(build, at, made, device):
    """Contract 5: random streams, batch norms, training flags, gradients, memory."""
    model, batch = made(build)
    stock = copy.deepcopy(model)
    step(stock, batch)
    streams = [torch.get_rng_state()]
    streams += torch.cuda.get_rng_state_all() if device == 'cuda' else []
    with mmfeataug.attach(model, [afan(at, steps=2, bn='frozen')], clean_weight=0.5):
        reference.seed()
        torch.manual_seed(3)
        losses = model.loss(*batch)
        assert all(p.grad is None for p in model.parameters())
        model.parse_losses(losses)[0].backward()
        after = [torch.get_rng_state()]
        after += torch.cuda.get_rng_state_all() if device == 'cuda' else []
        for ours, theirs in zip(after, streams, strict=True):
            assert torch.equal(ours, theirs)
        for name, value in buffers(stock).items():
            torch.testing.assert_close(buffers(model)[name], value)
        copy.deepcopy(model)
        if device == 'cuda':
            del losses
            before = torch.cuda.memory_allocated()
            for _ in range(3):
                step(model, batch)
            # Gradients are copied by step(); nothing else may stay.
            assert torch.cuda.memory_allocated() <= 1.01 * before


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype, made, device):
    """Contract 7: an unmoved view makes the stock step, but for rounding; with a scaler in fp16."""
    if device == 'cpu' and dtype == torch.float16 and not half_on_cpu():
        pytest.skip('no float16 on CPUs')
    found = []
    for views in (True, False):
        model, batch = made(build_segmentor)
        view = Unmoved(at='backbone.layer3', weight=0.5, learn='network', bn='frozen')
        scale = 2.0**10 if dtype == torch.float16 else 1.0
        torch.manual_seed(3)
        with mmfeataug.attach(model, [view] * views, clean_weight=0.5 if views else 1.0):
            with torch.autocast(device, dtype=dtype):
                losses = model.loss(*batch)
            (model.parse_losses(losses)[0] * scale).backward()
        kept = [g / scale for g in gradients(model).values() if g is not None]
        found.append(torch.cat([g.flatten() for g in kept]))
    assert found[0].isfinite().all()
    assert torch.dist(*found) < 0.05 * found[1].norm()


@EACH
def test_noise_of_kernels_is_no_fault(build, at, made, monkeypatch):
    """Contract 7: kernels that add in any order, chosen by timing."""
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', True)
    monkeypatch.setattr(torch.backends.cudnn, 'deterministic', False)
    model, batch = made(build)
    with mmfeataug.attach(model, [afan(at)], clean_weight=0.5, strict=True) as handle:
        for seed in range(3):
            losses, _ = step(model, batch, seed)
            assert float(losses['afan.dropped']) == 0
        assert handle.taps[0].memoize


@EACH
def test_the_host_waits_once_a_view(build, at, made, only_on_gpu):
    """Contract 9: beyond what the tail itself waits for, as in the stock step."""
    from benchmarks.measure import waits_of

    model, batch = made(build)
    waits = {}
    for views in (0, 1, 2, 4):
        strengths = tuple((i + 1) / 4 for i in range(views))
        entries = [afan(at, strengths=strengths, weight=0.1)] if views else []
        with mmfeataug.attach(model, entries):
            for seed in range(11):
                step(model, batch, seed)
            waits[views] = waits_of(partial(step, model, batch), 'cuda')
    most = waits[0] + 2
    assert waits[4] - waits[2] <= 2 * most
    assert waits[2] - waits[1] <= most


@EACH
def test_memory_does_not_grow_with_views(build, at, made, only_on_gpu):
    """Contract 9."""
    from benchmarks.measure import peak_of

    model, batch = made(build)
    peaks = []
    for views in (1, 4):
        entry = afan(at, strengths=[(i + 1) / 4 for i in range(views)], weight=0.1)
        with mmfeataug.attach(model, [entry]):
            step(model, batch)
            peaks.append(peak_of(partial(step, model, batch), 'cuda'))
    assert peaks[1] < 1.1 * peaks[0]


def test_sync_bn(made, only_on_gpu):
    """Contract 7, on a process group of one: real SyncBN layers, with a collective in each pass."""
    distributed.init_process_group('nccl', store=distributed.HashStore(), rank=0, world_size=1)
    try:
        model, batch = made(build_segmentor)
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        with mmfeataug.attach(model, [afan('backbone.layer3')], clean_weight=0.5, strict=True):
            losses, grads = step(model, batch)
        assert float(losses['afan.dropped']) == 0
        assert all(g.isfinite().all() for g in grads.values() if g is not None)
    finally:
        distributed.destroy_process_group()
