# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Places in configs: a path, a list, a pattern, the same for every method and every door."""

import pytest
import torch
from torch import nn

import mmfeataug
from mmfeataug.engine import TapError, find_module
from mmfeataug.methods import AFAN
from mmfeataug.models import AugmentedBackbone, collect, layers
from tests.models import (
    build_classifier,
    build_segmentor,
    classifier_cfg,
    deeplab_cfg,
    random_test_batch,
    resnet,
)

TWO = ['backbone.layer1', 'backbone.layer2']


@pytest.mark.parametrize('at', [TWO, 'backbone.layer[12]', ['backbone.layer1', '*.layer[12]']])
def test_one_view_for_each_place(at):
    with mmfeataug.attach(model := build_segmentor(), [dict(type='AFAN', at=at)]) as handle:
        losses = model.loss(*random_test_batch(model))
    assert [tap.at for tap in handle.taps] == TWO
    assert handle.objective == 'objective = 0.50 clean + 0.25 afan + 0.25 afan2 = 1.00'
    assert {'afan.loss_0', 'afan2.loss_0'} <= losses.keys()


def test_a_star_stays_between_dots():
    entry = dict(type='AFAN', at='backbone.layer*')
    with mmfeataug.attach(build_segmentor(), [entry]) as handle:
        assert [tap.at for tap in handle.taps] == [f'backbone.layer{i}' for i in (1, 2, 3, 4)]


def test_methods_that_compare_places_have_them_at_once():
    entry = dict(type='FMA', at=['decode_head.bottleneck', 'backbone.layer[12]'])
    with mmfeataug.attach(build_segmentor(), [entry]) as handle:
        (augmentation,) = handle.augmentations.values()
    assert augmentation.paths == ('decode_head.bottleneck', *TWO)


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        (dict(type='AFAN', at=['backbone.layer1', 'backbone.layr2']), "'backbone.layr2'.*layer2"),
        (
            dict(type='MixStyle', at='backbone.layr[12]'),
            r"part 'layr\[12\]' was matched against conv1, .*layer1.*backbone.*Nearest: .*layer",
        ),
        (dict(type='AFAN', at='bakbone.*'), "part 'bakbone' was matched against .*decode_head"),
        (
            dict(type='AdAutoMix', at='backbone.layer*', channels=8, compare='backbone'),
            'AdAutoMix looks at one place, this names 4',
        ),
        (dict(type='AFAN', at=[]), r'at=\[\]: give a module path'),
        (dict(type='AFAN', at=[1]), r'at=\[1\]: give a module path'),
        (dict(type='AFAN'), 'missing.*at'),
    ],
)
def test_refusals(entry, message):
    with pytest.raises((TapError, TypeError), match=message):
        mmfeataug.attach(build_segmentor(), [entry])


def test_an_object_is_at_one_place():
    with pytest.raises(TypeError, match='which a config, dict'):
        AFAN(at=TWO)
    with pytest.raises(TapError, match='give the augmentation as a config'):
        mmfeataug.attach(build_segmentor(), [AFAN(at='backbone.layer[12]')])


def test_layers_and_views_of_a_backbone():
    backbone = AugmentedBackbone(
        resnet(),
        augmentations=[
            dict(type='MixStyle', at='layer[12]', prob=1.0),
            dict(type='AFAN', at=['layer3', 'layer[34]']),
        ],
    )
    assert list(layers(backbone).values()) == ['layer1', 'layer2']
    assert [entry['at'] for entry in collect(backbone)] == ['layer3', 'layer4']


@pytest.mark.classification
def test_learnt_strengths_of_a_pattern():
    pytest.importorskip('mmpretrain')
    cfg = dict(classifier_cfg())
    entry = dict(type='LALFA', at='backbone.layer[123]', steps=1)
    model = build_classifier(
        dict(cfg, type='mmfeataug.AugmentedModel', of=cfg['type'], augmentations=[entry])
    )
    with mmfeataug.attach(model, collect(model)) as handle:
        losses = model.loss(*random_test_batch(model))
    assert [n for n, _ in model.feature_aug.named_children()] == [
        f'strength_backbone_layer{i}' for i in (1, 2, 3)
    ]
    assert sum(len(w) for w in handle.view_weights.values()) == 3
    assert torch.stack([v for k, v in losses.items() if '.loss_' in k]).isfinite().all()


def test_a_module_with_several_paths():
    """As DETR's shared branches."""
    head = nn.Linear(3, 3)
    model = nn.ModuleDict(dict(heads=nn.ModuleList([head] * 3)))
    assert find_module(model, 'heads.1') is head


def test_images_have_no_input():
    with pytest.raises(ValueError, match=r"side='input' at 'inputs'.*side='output'"):
        AFAN(at='inputs', side='input')


def test_a_model_with_a_list():
    cfg = deeplab_cfg()
    entry = dict(type='AdvBN', at=TWO, bn='separate', steps=1)
    model = build_segmentor(
        dict(cfg, type='mmfeataug.AugmentedModel', of=cfg['type'], augmentations=[entry])
    )
    assert [e['at'] for e in collect(model)] == TWO
