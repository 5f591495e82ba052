# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Classifiers of mmpretrain through the same doors: places, wrappers, batch augmentations, SeA on
fixed features. What every method leaves and both engines give is in contract 4.
"""

import copy

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

import mmfeataug
from mmfeataug.datasets.random_batch import random_batch
from mmfeataug.hooks import FeatureAugHook
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.visualization import record
from tests.contract.cases import afan
from tests.contract.test_1_stock_outside import assert_same, predict
from tests.contract.test_4_auxiliary_bn import augmented
from tests.contract.test_4_methods import METHODS, early
from tests.models import (
    CLASSIFIERS,
    build_classifier,
    classifier_cfg,
    random_test_batch,
    raw_test_batch,
    step,
)
from tests.oracle import held_against_reference

pytestmark = pytest.mark.classification

LATE = {'efficientnet-b0': 'layers.6', 'swin': 'stages.2'}
PLACES = [
    (name, at, side)
    for name in CLASSIFIERS
    for at, side in (
        ('inputs', 'output'),
        (early(name), 'output'),
        (f'backbone.{LATE.get(name, "layer3")}', 'output'),
        ('backbone', 'output'),
        ('neck', 'output'),
        ('head.fc', 'input'),
    )
]
EACH_CLASSIFIER = pytest.mark.parametrize('name', CLASSIFIERS)


@pytest.mark.parametrize(('name', 'at', 'side'), PLACES)
def test_replay_is_exact(name, at, side):
    """A view that does not move has the clean loss, bit for bit."""
    model = build_classifier(name)
    batch = random_test_batch(model)
    settings = dict(strengths=(0.0,), gamma=0.0, noise=1e-45, weight=1.0, bn='frozen')
    with mmfeataug.attach(model, [afan(at, side, **settings)], clean_weight=1.0, strict=True):
        losses, _ = step(model, batch)
    assert torch.equal(losses['afan.loss_0'], losses['loss'].detach())
    assert losses['afan.dropped'] == 0


@EACH_CLASSIFIER
def test_wrapped_parts_are_stock(name):
    """Class, keys and predictions of a classifier whose parts declare augmentations."""
    cfg = copy.deepcopy(CLASSIFIERS[name])
    at = early(name).removeprefix('backbone.')
    entries = [dict(type='mmfeataug.AFAN', at=at), dict(type='mmfeataug.MixStyle', at=at)]
    cfg['backbone'] = dict(
        type='mmfeataug.AugmentedBackbone', backbone=cfg['backbone'], augmentations=entries
    )
    stock, ours = build_classifier(name), build_classifier(cfg)
    assert type(ours.backbone) is type(stock.backbone)
    assert list(ours.state_dict()) == list(stock.state_dict())
    batch = random_test_batch(stock)
    assert_same(predict(ours, batch), predict(stock, batch))


@pytest.mark.parametrize('name', [name for name in CLASSIFIERS if name != 'swin'])
def test_second_batch_norms(name):
    config = dict(type='AdvBN', at=early(name), steps=1, bn='separate')
    declared = {**config, 'type': 'mmfeataug.AdvBN'}
    stock = build_classifier(name)
    model = build_classifier(augmented(CLASSIFIERS[name], declared))
    assert type(model) is type(stock)
    assert list(model.state_dict())[: len(stock.state_dict())] == list(stock.state_dict())
    with mmfeataug.attach(model, [config], strict=True):
        _, gradients = step(model, random_test_batch(model))
    second = [g for n, g in gradients.items() if n.startswith('aux_bn.')]
    assert any(g is not None and g.any() for g in second)


def test_swin_has_no_batch_norms_to_separate():
    model = build_classifier('swin')
    with pytest.raises(ValueError, match="no batch norm behind this place; use bn='shared'"):
        mmfeataug.attach(model, [dict(type='AdvBN', at=early('swin'), bn='separate')])


@pytest.mark.parametrize('form', ['prediction', 'embedding'])
def test_stability_training(form):
    at = 'head.fc' if form == 'prediction' else 'neck'
    config = dict(type='StabilityTraining', at=at, form=form)
    model = build_classifier()
    with mmfeataug.attach(model, [config], strict=True):
        losses, gradients = step(model, random_test_batch(model))
    assert losses['stability.loss_0'] > 0
    assert gradients['backbone.conv1.weight'].isfinite().all()


def mixing_batch(model):
    """What the data preprocessor hands over when it mixes samples: labels are shares."""
    inputs, samples = random_test_batch(model, images=4)
    np.random.seed(0)
    data = dict(inputs=list(inputs.byte()), data_samples=samples)
    data = model.data_preprocessor(data, training=True)
    assert 'gt_score' in data['data_samples'][0]
    return data['inputs'], data['data_samples']


@pytest.mark.parametrize('loss', ['CrossEntropyLoss', 'mmfeataug.MarginSoftmaxLoss'])
def test_mixed_labels(loss):
    """mmpretrain's Mixup and CutMix act before the model's loss."""
    cfg = classifier_cfg(train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]))
    cfg['head']['loss'] = dict(type=loss)
    if loss == 'CrossEntropyLoss':
        cfg['head']['loss'].update(use_soft=True)
    configs = [afan('backbone.layer2'), METHODS['sea']('resnet18')]
    model = build_classifier(cfg)
    batch = mixing_batch(model)
    losses, _ = held_against_reference(model, configs, batch, limit=1e-4)
    assert all(losses[key].isfinite() for key in ('afan.loss_1', 'sea.loss_0'))


def linear_probe():
    """A classifier on fixed features of unit length, with the loss of SeA's release."""
    cfg = classifier_cfg()
    cfg['backbone']['frozen_stages'] = 4
    cfg['neck'] = dict(type='mmfeataug.UnitPooling')
    cfg['head']['loss'] = dict(type='mmfeataug.MarginSoftmaxLoss')
    return build_classifier(cfg)


def test_sea_on_fixed_features():
    """Only the classifier learns, from rows of unit length that moved by the paper's formula."""
    model = linear_probe()
    batch = random_test_batch(model, images=4)
    augmentation = AUGMENTATIONS.build(dict(type='SeA', at='head.fc', weight=1.0))
    changes = record(augmentation)
    with mmfeataug.attach(model, [augmentation], clean_weight=1e-6, strict=True):
        losses, gradients = step(model, batch)
    clean, view = changes[0].clean, changes[0].view
    torch.testing.assert_close(view.norm(dim=1), torch.ones(4))
    assert not torch.allclose(view, clean)
    assert {n for n, g in gradients.items() if g is not None} == {'head.fc.weight', 'head.fc.bias'}
    # As good as the view alone.
    weight, bias = (p.detach().clone().requires_grad_() for p in model.head.fc.parameters())
    target = torch.cat([s.gt_label for s in batch[1]])
    alone = model.head.loss_module(torch.nn.functional.linear(view, weight, bias), target)
    expected = torch.autograd.grad(alone, weight)[0]
    torch.testing.assert_close(gradients['head.fc.weight'], expected, rtol=1e-4, atol=1e-6)
    assert losses['sea.loss_0'] == pytest.approx(alone.item(), rel=1e-5)


def test_trained_by_the_hook(tmp_path):
    """With accuracy in the training log, by a Runner: batches of data as they are collated."""
    cfg = classifier_cfg()
    cfg['head']['cal_acc'] = True
    model = build_classifier(cfg)
    inputs, samples = raw_test_batch(model, images=8)
    data = [dict(inputs=x, data_samples=s) for x, s in zip(inputs, samples, strict=True)]
    entries = [afan('backbone.layer2'), METHODS['sea']('resnet18'), METHODS['fma']('resnet18')]
    before = copy.deepcopy(model.state_dict())
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader=dict(
            dataset=data,
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[FeatureAugHook(entries)],
        default_hooks=dict(checkpoint=None),
        default_scope='mmpretrain',
        experiment_name='classification',
    )
    runner.train()
    logged = runner.message_hub.log_scalars
    for key in ('loss', 'afan.loss_0', 'sea.loss_0', 'fma.loss_0', 'accuracy_top-1'):
        assert f'train/{key}' in logged
    assert logged['train/feature_aug.active'].current() == 1
    assert list(model.state_dict()) == list(before)
    assert not torch.equal(model.state_dict()['head.fc.weight'], before['head.fc.weight'])
    assert 'loss' not in vars(model)


def test_random_batch_knows_the_classes():
    model = build_classifier(classifier_cfg(num_classes=3))
    inputs, samples = random_batch(model, (32, 64), images=20)
    assert inputs.shape == (20, 3, 32, 64)
    assert {int(s.gt_label) for s in samples} == {0, 1, 2}
