# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What losses keep stays what stock calls leave, on real models and over many iterations."""

import copy
import importlib

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope

import mmfeataug
from mmfeataug.datasets import random_batch
from mmfeataug.engine.batch import weighted
from tests.contract.cases import afan
from tests.contract.test_5_traces import Remembering
from tests.models import step
from tests.oracle import Unmoved
from tests.zoo.shrink import load_model_config, shrink
from tests.zoo.table import PARAMS, Entry

LATE = 20


def build(entry):
    importlib.import_module(f'{entry.package}.utils').register_all_modules(False)
    init_default_scope(entry.package)
    MessageHub.get_current_instance().update_info('epoch', 0)
    cfg = shrink(load_model_config(entry.package, entry.config), entry.divisor, entry.overrides)
    torch.manual_seed(0)
    model = importlib.import_module(f'{entry.package}.registry').MODELS.build(cfg).train()
    model.init_weights()
    return model, random_batch(model, (entry.size, entry.size))


def remembering(model):
    """The model with a loss that counts its calls, from a late one on, and depends on them."""

    class Late(type(model)):
        def loss(self, inputs, data_samples=None):
            self.keeper.calls += 1
            if self.keeper.calls > LATE:
                self.keeper.remember()
            factor = 1 + 0.01 * sum(self.keeper.counts().values())
            return weighted(super().loss(inputs, data_samples), factor)

    model.__class__ = Late
    model.keeper = Remembering()
    return model


@pytest.mark.parametrize('entry', PARAMS)
def test_a_loss_that_begins_late_to_keep_things(entry):
    """In every place where losses keep things; a view starts from what the clean call started
    from.
    """
    if entry.needs:
        pytest.importorskip(entry.needs)
    model, (inputs, samples) = build(entry)
    remembering(model)
    MessageHub.get_current_instance().log_scalars.pop('remembered', None)
    unmoved = Unmoved(at=entry.middle, weight=0.5, bn='frozen')
    with mmfeataug.attach(model, [unmoved], clean_weight=1.0):
        for number in range(1, 31):
            losses, _ = step(model, (inputs, copy.deepcopy(samples)))
            counts = model.keeper.counts()
            assert counts == dict.fromkeys(counts, max(number - LATE, 0))
            clean = sum(float(v) for k, v in model.parse_losses(losses)[1].items() if is_term(k))
            view = float(losses['unmoved.loss_0'])
            assert view == pytest.approx(clean / 2, rel=1e-3)


def is_term(name):
    return 'loss' in name and name != 'loss' and not name.startswith(('unmoved', 'feature_aug'))


DYNAMIC = Entry('mmdet', 'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py', 'roi_head')
RESNET = dict(type='ResNet', depth=18, base_channels=8, norm_cfg=dict(type='BN'))
MLP = dict(hid_channels=32, out_channels=16)


def dynamic_rcnn():
    return build(DYNAMIC)


def selfsupervised(cfg):
    importlib.import_module('mmpretrain.utils').register_all_modules(False)
    init_default_scope('mmpretrain')
    hub = MessageHub.get_current_instance()
    hub.update_info('max_iters', 1000)
    hub.update_info('iter', 0)
    torch.manual_seed(0)
    registry = importlib.import_module('mmpretrain.registry')
    structures = importlib.import_module('mmpretrain.structures')
    model = registry.MODELS.build(cfg).train()
    images = [torch.randn(4, 3, 32, 32) for _ in range(2)]
    return model, (images, [structures.DataSample() for _ in range(4)])


def byol():
    neck = dict(type='NonLinearNeck', in_channels=64, **MLP, num_layers=2, with_last_bn=False)
    predictor = dict(neck, in_channels=16, with_avg_pool=False)
    head = dict(
        type='LatentPredictHead', loss=dict(type='CosineSimilarityLoss'), predictor=predictor
    )
    return selfsupervised(
        dict(type='BYOL', base_momentum=0.1, backbone=RESNET, neck=neck, head=head)
    )


def moco():
    neck = dict(type='MoCoV2Neck', in_channels=64, **MLP)
    head = dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'), temperature=0.2)
    sizes = dict(queue_len=64, feat_dim=16, momentum=0.1)
    return selfsupervised(dict(type='MoCo', **sizes, backbone=RESNET, neck=neck, head=head))


@pytest.mark.slow
@pytest.mark.parametrize('make', [dynamic_rcnn, byol, moco])
def test_clean_terms_over_120_iterations(make):
    """With the weights of a stock run; the interval of Dynamic R-CNN is 100."""
    stock, (inputs, samples) = make()
    ours = copy.deepcopy(stock)
    learnt = [p for p in stock.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learnt, 0.002)
    entry = afan('backbone.layer2', gamma=0.3, strengths=(0.5, 1.0), weight=0.25)
    mine = [p for p in ours.parameters() if p.requires_grad]
    with mmfeataug.attach(ours, [entry], clean_weight=1.0):
        for seed in range(120):
            with torch.no_grad():
                for own, theirs in zip(mine, learnt, strict=True):
                    own.copy_(theirs)
            batch = copy.deepcopy((inputs, samples))
            losses, _ = step(ours, copy.deepcopy(batch), seed)
            expected, _ = step(stock, batch, seed)
            for name, value in expected.items():
                if 'loss' in name:
                    torch.testing.assert_close(losses[name], value, rtol=1e-6, atol=1e-7)
            optimizer.step()
    for (name, value), theirs in zip(ours.named_parameters(), stock.parameters(), strict=True):
        if not value.requires_grad:
            torch.testing.assert_close(value, theirs, rtol=1e-6, atol=1e-7, msg=name)
