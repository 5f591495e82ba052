# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contracts 1, 2, 4, 5 for every method, on two detectors, two segmentors and five classifiers."""

import copy
import pickle
from functools import partial

import pytest
import torch

import mmfeataug
from tests.contract.cases import CLASSIFICATION
from tests.contract.test_1_stock_outside import assert_same
from tests.models import (
    CLASSIFIERS,
    buffers,
    build_classifier,
    build_detector,
    build_segmentor,
    deeplab_cfg,
    faster_rcnn_cfg,
    random_test_batch,
    relative_difference,
    retinanet_cfg,
    step,
    upernet_swin_cfg,
)

pytestmark = pytest.mark.methods


def early(name):
    places = {'efficientnet-b0': 'layers.1', 'swin': 'stages.0', 'upernet-swin': 'stages.0'}
    return f'backbone.{places.get(name, "layer1")}'


CLASSIFIER = {
    'faster-rcnn': ('roi_head.bbox_head.fc_cls', dict(background=-1)),
    'retinanet': ('bbox_head.retina_cls', {}),
    'deeplabv3plus': ('decode_head.conv_seg', {}),
    'upernet-swin': ('decode_head.conv_seg', {}),
    **dict.fromkeys(CLASSIFIERS, ('head.fc', {})),
}
MODELS = {
    'faster-rcnn': lambda: build_detector(faster_rcnn_cfg()),
    'retinanet': lambda: build_detector(retinanet_cfg()),
    'deeplabv3plus': lambda: build_segmentor(deeplab_cfg()),
    'upernet-swin': lambda: build_segmentor(upernet_swin_cfg()),
    **{name: partial(build_classifier, name) for name in CLASSIFIERS},
}
METHODS = {
    'advbn': lambda m: dict(type='AdvBN', at=early(m), steps=2),
    'advstyle': lambda m: dict(type='AdvStyle'),
    'afan-pixel': lambda m: dict(type='AFAN', at='inputs', unit='pixel', gamma=2.0),
    'sea': lambda m: dict(type='SeA', at=CLASSIFIER[m][0], rows=64, **CLASSIFIER[m][1]),
    'fma': lambda m: dict(type='FMA'),
    'fma-online': lambda m: (
        dict(type='FMA', at='neck' if m == 'faster-rcnn' else 'backbone')
        | dict(target='online', task_weight=0.5, bn='shared', norm='l2', scale_channels=False)
    ),
    'stability': lambda m: dict(
        type='StabilityTraining',
        at=CLASSIFIER[m][0],
        hold=('rpn_head',) if m == 'faster-rcnn' else (),
        sigmoid=m == 'retinanet',
    ),
    'mixstyle': lambda m: dict(type='MixStyle', at=early(m), prob=1.0),
    'mixstyle-view': lambda m: dict(type='MixStyle', at=early(m), prob=1.0, as_view=True),
    'dsu': lambda m: dict(type='DSU', at=early(m), prob=1.0),
    'moex': lambda m: dict(type='MoEx', at=early(m), prob=1.0),
    'padain': lambda m: dict(type='PAdaIN', at=early(m), prob=1.0),
    'np': lambda m: dict(type='NormalizationPerturbation', at=early(m), prob=1.0),
    'np+': lambda m: dict(type='NormalizationPerturbation', at=early(m), plus=True, prob=1.0),
}
EVERYWHERE = [
    pytest.param(
        m,
        k,
        marks=[CLASSIFICATION] * (m in CLASSIFIERS)
        + [pytest.mark.slow] * (m in ('resnet50', 'resnext50', 'efficientnet-b0')),
    )
    for m in MODELS
    for k in METHODS
]
EACH = pytest.mark.parametrize(('model', 'method'), EVERYWHERE)
# Of two samples, each has the other one's statistics with this.
SEED = 0


def run(model, method, engine='precomputed', **settings):
    built = MODELS[model]()
    batch = random_test_batch(built)
    keys, kept = list(built.state_dict()), copy.deepcopy(built.state_dict())
    config = {**METHODS[method](model), **settings}
    with mmfeataug.attach(built, [config], engine=engine, strict=True) as handle:
        losses, gradients = step(built, batch, SEED)
        assert handle.active
        copy.deepcopy(built)
        pickle.dumps(built.state_dict())
    assert list(built.state_dict()) == keys
    assert all(not m.__dict__.keys() & {'forward', 'loss'} for m in built.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in built.modules())
    for name, parameter in built.named_parameters():
        assert torch.equal(parameter, kept[name]), name
    return losses, gradients, buffers(built)


@EACH
def test_engines_agree_and_nothing_is_left(model, method):
    engines_agree(model, method)


@pytest.mark.parametrize(
    ('model', 'method', 'settings'),
    [
        *(('deeplabv3plus', k, dict(as_view=True)) for k in ('dsu', 'moex', 'padain', 'np', 'np+')),
        ('faster-rcnn', 'np', dict(as_view=True)),
        ('faster-rcnn', 'stability', dict(form='embedding', at='neck')),
        ('upernet-swin', 'stability', dict(form='embedding', at='backbone')),
        ('faster-rcnn', 'fma', dict(target='frozen')),
        ('retinanet', 'fma', dict(target='frozen')),
        ('faster-rcnn', 'afan-pixel', dict(against=[['cls'], ['bbox']])),
    ],
)
def test_engines_agree_on_other_forms(model, method, settings, tmp_path):
    if settings.get('target') == 'frozen':
        teacher = tmp_path / 'teacher.pth'
        torch.save({'state_dict': MODELS[model]().state_dict()}, teacher)
        settings = {**settings, 'teacher': str(teacher)}
    losses = engines_agree(model, method, **settings)
    assert any(key.endswith('.loss_0') for key in losses)


def engines_agree(model, method, **settings):
    losses, gradients, state = run(model, method, **settings)
    assert all(v.isfinite().all() for v in losses.values() if isinstance(v, torch.Tensor))
    plain_losses, plain_gradients, plain_state = run(model, method, 'graph', **settings)
    assert losses.keys() == plain_losses.keys()
    # Two sweeps through the clean graph instead of one: what cancels is compared on a larger scale.
    floor, limit = (0.1, 4e-6) if method == 'fma-online' else (0.0, 2e-6)
    assert relative_difference(gradients, plain_gradients, floor) < limit
    for name in state:
        torch.testing.assert_close(state[name], plain_state[name], msg=name)
    # This can fail: without the method the gradient is another one.
    stock = MODELS[model]()
    _, plain = step(stock, random_test_batch(stock), SEED)
    assert any(not torch.equal(gradients[n], plain[n]) for n in plain if plain[n] is not None)
    return losses


@pytest.mark.parametrize('method', METHODS)
def test_off_is_stock(method):
    off = {'prob': 0.0} if 'prob' in METHODS[method]('deeplabv3plus') else {'weight': 0.0}
    if method == 'fma-online':
        off['task_weight'] = 0.0
    stock, ours = (MODELS['deeplabv3plus']() for _ in range(2))
    batch = random_test_batch(stock)
    expected = step(stock, batch, SEED)
    with mmfeataug.attach(ours, [{**METHODS[method]('deeplabv3plus'), **off}]) as handle:
        found = step(ours, batch, SEED)
        assert not handle.active
    assert_same(found, expected)
    assert_same(buffers(ours), buffers(stock))


@pytest.mark.parametrize('method', METHODS)
def test_random_streams_go_on_as_if_nothing_was(method):
    """Methods that make views or terms draw for themselves; layers draw as dropout does."""
    stock, ours = (MODELS['deeplabv3plus']() for _ in range(2))
    batch = random_test_batch(stock)
    step(stock, batch, SEED)
    expected = torch.rand(1)
    with mmfeataug.attach(ours, [METHODS[method]('deeplabv3plus')]) as handle:
        step(ours, batch, SEED)
        in_place = bool(handle._layers)
    assert (torch.rand(1) == expected) != in_place


@pytest.mark.parametrize('method', ['advbn', 'sea', 'fma', 'stability', 'mixstyle', 'afan-pixel'])
def test_half_precision(method):
    model = MODELS['deeplabv3plus']()
    batch = random_test_batch(model)
    with (
        mmfeataug.attach(model, [METHODS[method]('deeplabv3plus')], strict=True),
        torch.autocast('cpu', torch.bfloat16),
    ):
        losses = model.loss(*batch)
    total, logged = model.parse_losses(losses)
    total.backward()
    assert all(float(v) == 0 for k, v in logged.items() if k.endswith('dropped'))
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_term_that_overflows_lowers_the_scale():
    """It is dropped, and the next iterations have a smaller factor against underflow."""
    model = MODELS['deeplabv3plus']()
    batch = random_test_batch(model)
    with mmfeataug.attach(model, [dict(type='FMA', weight=1e33)]) as handle:
        before = handle.state_dict()['loss_scale']
        with torch.autocast('cpu', torch.float16):
            losses = model.loss(*batch)
        assert losses['fma.dropped'] == 1
        assert handle.state_dict()['loss_scale'] == before / 2
    model.parse_losses(losses)[0].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_methods_work_together():
    """A layer before a tap, views behind it, and copies of the batch, all in one step; replays see
    the layer's draws again."""
    configs = [
        METHODS['mixstyle']('faster-rcnn'),
        dict(type='AFAN', at='backbone.layer2', strengths=(0.5, 1.0), weight=0.2),
        dict(type='DSU', at='backbone.layer3', prob=1.0),
        METHODS['sea']('faster-rcnn'),
        METHODS['fma']('faster-rcnn'),
    ]
    found = []
    for engine in ('precomputed', 'graph'):
        built = MODELS['faster-rcnn']()
        with mmfeataug.attach(built, configs, engine=engine, strict=True):
            found.append(step(built, random_test_batch(built), SEED))
    assert relative_difference(found[0][1], found[1][1]) < 2e-6
    assert {k.split('.')[0] for k in found[0][0] if '.' in k} == {'afan', 'sea', 'fma'}
