# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contracts 1, 2, 4, 5 for every method, on two detectors, two segmentors and five classifiers."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch.utils._pytree import tree_flatten

import mmfeataug
from mmfeataug.registry import AUGMENTATIONS
from tests import reference
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
    needs_half,
    random_test_batch,
    retinanet_cfg,
    step,
    upernet_swin_cfg,
)
from tests.oracle import difference, double, double_precision, held_against_reference

pytestmark = pytest.mark.methods


def early(name):
    places = {'efficientnet-b0': 'layers.1', 'swin': 'stages.0', 'upernet-swin': 'stages.0'}
    return f'backbone.{places.get(name, "layer1")}'


def stem(name):
    embedding = 'patch_embed.projection'
    places = {'efficientnet-b0': 'layers.0', 'swin': embedding, 'upernet-swin': embedding}
    # CIFAR's has no pooling.
    places['resnet18'] = 'layer1'
    return f'backbone.{places.get(name, "maxpool")}'


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
    'mrfp': lambda m: dict(type='MRFP', at=stem(m), prob=1.0),
    'distort-images': lambda m: dict(
        type='DistortImages', prob=1.0, distortions=[dict(type='RandomGaussianNoise', std=0.1)]
    ),
}
LARGE = ('resnet50', 'resnext50', 'efficientnet-b0')
# What they do does not depend on the model: three are enough for a usual run.
ANYWHERE = ('dsu', 'moex', 'padain', 'np', 'np+', 'mixstyle', 'distort-images', 'afan-pixel')
EVERYWHERE = [
    pytest.param(
        m,
        k,
        marks=[CLASSIFICATION] * (m in CLASSIFIERS)
        + [pytest.mark.slow]
        * (m in LARGE or (k in ANYWHERE and m not in ('faster-rcnn', 'deeplabv3plus', 'swin'))),
    )
    for m in MODELS
    for k in METHODS
]
EACH = pytest.mark.parametrize(('model', 'method'), EVERYWHERE)
# Of two samples, each has the other one's statistics with this.
SEED = 0


def run(model, method, **settings):
    built = MODELS[model]()
    batch = random_test_batch(built)
    keys, kept = list(built.state_dict()), copy.deepcopy(built.state_dict())
    config = {**METHODS[method](model), **settings}
    with mmfeataug.attach(built, [config], strict=True) as handle:
        losses, gradients = step(built, batch, SEED)
        assert handle.was_active
        copy.deepcopy(built)
        pickle.dumps(built.state_dict())
    assert list(built.state_dict()) == keys
    assert all(not m.__dict__.keys() & {'forward', 'loss'} for m in built.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in built.modules())
    for name, parameter in built.named_parameters():
        assert torch.equal(parameter, kept[name]), name
    return losses, gradients, buffers(built)


@EACH
def test_nothing_is_left(model, method):
    losses, gradients, _ = run(model, method)
    assert all(v.isfinite().all() for v in losses.values() if isinstance(v, torch.Tensor))
    assert all(g.isfinite().all() for g in gradients.values() if g is not None)


VIEWS = {
    **{k: METHODS[k] for k in ('advbn', 'advstyle', 'afan-pixel', 'sea', 'mixstyle-view')},
    'afan-against': lambda m: dict(METHODS['afan-pixel'](m), against=[['cls'], ['bbox']]),
    **{
        f'{k}-view': lambda m, k=k: dict(METHODS[k](m), as_view=True)
        for k in ('dsu', 'moex', 'padain', 'np', 'np+')
    },
}
"""Methods that make views, with what makes them do so."""


@pytest.mark.parametrize(
    ('model', 'method', 'learn'),
    [
        *(('deeplabv3plus', k, 'network') for k in VIEWS if k != 'afan-against'),
        *(('faster-rcnn', k, 'network') for k in ('advbn', 'sea', 'afan-against', 'np-view')),
        *(('retinanet', k, 'skips') for k in ('advbn', 'sea')),
        *(('upernet-swin', k, 'tail') for k in ('sea', 'mixstyle-view')),
        *(pytest.param('resnet18', k, 'network', marks=CLASSIFICATION) for k in ('advbn', 'sea')),
    ],
)
def test_gradients_are_those_of_the_reference(model, method, learn):
    with double_precision():
        built, batch = double(MODELS[model])
        entry = {**VIEWS[method](model), 'learn': learn}
        held_against_reference(built, [entry], batch)


@pytest.mark.parametrize(
    ('model', 'method', 'settings'),
    [
        ('deeplabv3plus', 'fma', {}),
        ('deeplabv3plus', 'fma-online', {}),
        ('faster-rcnn', 'fma-online', {}),
        ('deeplabv3plus', 'stability', {}),
        ('retinanet', 'stability', {}),
        ('faster-rcnn', 'stability', dict(form='embedding', at='neck', hold=())),
        pytest.param('resnet18', 'stability', {}, marks=CLASSIFICATION),
    ],
)
def test_terms_over_copies_are_those_of_the_reference(model, method, settings):
    """Both passes in one graph of plain autograd, on the copy that the method made."""
    with double_precision():
        built, batch = double(MODELS[model])
        plain, images = copy.deepcopy(built), []
        entry = {**METHODS[method](model), **settings}
        with mmfeataug.attach(built, [entry], clean_weight=0.5, strict=True) as handle:
            (augmentation,) = handle.augmentations.values()
            augmentation.observer = lambda clean, copies, made, index: images.append(made.clone())
            losses, gradients = step(built, batch)
        value, expected = two_passes(plain, batch, augmentation, images[0], 0.5)
    torch.testing.assert_close(losses[f'{augmentation.name}.loss_0'], value, rtol=1e-7, atol=0)
    assert difference(gradients, expected) < 1e-7


def two_passes(model, batch, augmentation, images, clean_weight):
    """The term, and the gradients of the whole objective."""
    found = []

    def note(module, args, kwargs, output):
        value = output if augmentation.side == 'output' else (args, kwargs)
        found.extend(t for t in tree_flatten(value)[0] if isinstance(t, torch.Tensor))

    for path in augmentation.paths:
        model.get_submodule(path).register_forward_hook(note, with_kwargs=True)
    totals, features = [], []
    for given in (batch[0], images):
        reference.seed()
        found.clear()
        totals.append(model.parse_losses(model.loss(given, copy.deepcopy(batch[1])))[0])
        features.append(list(found))
    clean = [f if augmentation.online else f.detach() for f in features[0]]
    distances = [augmentation.distance(*pair) for pair in zip(features[1], clean, strict=True)]
    term = augmentation.weight * torch.stack(distances).mean()
    term = term + augmentation.task_weight * totals[1]
    names, parameters = zip(*model.named_parameters(), strict=True)
    total = clean_weight * totals[0] + term
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return term.detach(), dict(zip(names, gradients, strict=True))


def off(method):
    """A config without an effect."""
    entry = METHODS[method]('deeplabv3plus')
    weights = {'weight': 0.0} | ({'task_weight': 0.0} if method == 'fma-online' else {})
    return {**entry, **({'prob': 0.0} if 'prob' in entry else weights)}


@pytest.mark.parametrize('method', METHODS)
def test_off_is_inactive(method):
    assert not AUGMENTATIONS.build(off(method)).active


@pytest.mark.parametrize('method', ['advbn', 'mixstyle', 'fma-online'])
def test_off_is_stock(method):
    stock, ours = (MODELS['deeplabv3plus']() for _ in range(2))
    batch = random_test_batch(stock)
    expected = step(stock, batch, SEED)
    with mmfeataug.attach(ours, [off(method)]) as handle:
        found = step(ours, batch, SEED)
        assert not handle.was_active
    assert_same(found, expected)
    assert_same(buffers(ours), buffers(stock))


@pytest.fixture(scope='module')
def draw_behind_a_step():
    stock = MODELS['deeplabv3plus']()
    step(stock, random_test_batch(stock), SEED)
    return torch.rand(1)


@pytest.mark.parametrize('method', METHODS)
def test_random_streams_go_on_as_if_nothing_was(method, draw_behind_a_step):
    """Methods that make views or terms draw for themselves; layers draw as dropout does."""
    ours = MODELS['deeplabv3plus']()
    batch = random_test_batch(ours)
    with mmfeataug.attach(ours, [METHODS[method]('deeplabv3plus')]) as handle:
        step(ours, batch, SEED)
        in_place = bool(handle.layers)
    assert (torch.rand(1) == draw_behind_a_step) != in_place


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


@needs_half
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
    built = MODELS['faster-rcnn']()
    with mmfeataug.attach(built, configs, strict=True):
        losses, gradients = step(built, random_test_batch(built), SEED)
    assert {k.split('.')[0] for k in losses if '.' in k} == {'afan', 'sea', 'fma', 'feature_aug'}
    assert all(g.isfinite().all() for g in gradients.values() if g is not None)
    # Without the layers, which draw anew, these are what the reference says.
    with double_precision():
        built, batch = double(MODELS['faster-rcnn'])
        held_against_reference(built, [configs[1], configs[3]], batch)
