# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 1: seen from outside, the model is the stock model."""

import copy
import pickle
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmfeataug
from mmfeataug.registry import MODELS
from tests.contract.cases import CLASSIFICATION, EACH_TASK, afan
from tests.models import (
    build_classifier,
    build_detector,
    build_segmentor,
    classifier_cfg,
    deeplab_cfg,
    faster_rcnn_cfg,
    random_test_batch,
    step,
)


def with_wrappers(cfg):
    cfg = copy.deepcopy(cfg)
    cfg['backbone'] = dict(
        type='mmfeataug.AugmentedBackbone',
        backbone=cfg['backbone'],
        augmentations=[dict(type='mmfeataug.AFAN', at='layer2')],
    )
    if 'neck' in cfg:
        cfg['neck'] = dict(
            type='mmfeataug.AugmentedNeck',
            neck=cfg['neck'],
            augmentations=[dict(type='mmfeataug.AFAN', at='')],
        )
    return cfg


def predict(model, batch):
    model.eval()
    with torch.no_grad():
        tensors = model(*batch, mode='tensor')
        results = model.predict(batch[0], copy.deepcopy(batch[1]))
    model.train()
    return tensors, [r.to_dict() for r in results]


def assert_same(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif hasattr(a, 'to_dict'):
        assert_same(a.to_dict(), b.to_dict())
    elif hasattr(a, 'tensor'):
        assert_same(a.tensor, b.tensor)


@pytest.mark.parametrize(
    ('build', 'cfg'),
    [
        (build_detector, faster_rcnn_cfg()),
        (build_segmentor, deeplab_cfg()),
        pytest.param(build_classifier, classifier_cfg(), marks=CLASSIFICATION),
    ],
)
class TestWrappers:
    def test_classes_keys_and_names_are_stock(self, build, cfg):
        stock, ours = build(cfg), build(with_wrappers(cfg))
        assert [type(m) for m in stock.modules()] == [type(m) for m in ours.modules()]
        assert list(stock.state_dict()) == list(ours.state_dict())
        assert [n for n, _ in stock.named_parameters()] == [n for n, _ in ours.named_parameters()]

    def test_strict_load_both_ways_and_same_predictions(self, build, cfg):
        stock, ours = build(cfg), build(with_wrappers(cfg), seed=1)
        batch = random_test_batch(stock)
        ours.load_state_dict(stock.state_dict(), strict=True)
        stock.load_state_dict(ours.state_dict(), strict=True)
        assert_same(predict(stock, batch), predict(ours, batch))

    def test_without_the_hook_they_are_inert_and_say_so_once(self, build, cfg):
        stock, ours = build(cfg), build(with_wrappers(cfg))
        batch = random_test_batch(stock)
        with pytest.warns(UserWarning, match='nothing drives them'):
            losses, gradients = step(ours, batch)
        stock_losses, stock_gradients = step(stock, batch)
        assert_same(losses, stock_losses)
        assert_same(gradients, stock_gradients)
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter('error')
            step(ours, batch)


@pytest.mark.methods
@pytest.mark.parametrize('declared', [True, False])
def test_in_place_behind_a_frozen_stage(declared):
    """mmdet's stages are in evaluation mode where they are frozen; what comes after them trains."""
    cfg = faster_rcnn_cfg()
    cfg['backbone'].update(frozen_stages=1, norm_eval=True)
    changed, losses = copy.deepcopy(cfg), []
    method = dict(type='mmfeataug.NormalizationPerturbation', at='layer1', prob=1.0)
    if declared:
        changed['backbone'] = dict(
            type='mmfeataug.AugmentedBackbone', backbone=cfg['backbone'], augmentations=[method]
        )
    for model in (build_detector(cfg), build_detector(changed)):
        with ExitStack() as stack:
            if losses and not declared:
                stack.enter_context(mmfeataug.attach(model, [dict(method, at='backbone.layer1')]))
            losses.append(step(model, random_test_batch(model))[0]['loss_cls'])
    assert not torch.equal(*losses)


def test_what_is_inherited_beside_a_wrapper_is_refused(tmp_path):
    pytest.importorskip('mmdet')
    base = Path(__file__).resolve().parents[2] / 'configs/baseline/faster-rcnn_r18_fpn_8e_bccd.py'
    text = """
_base_ = {base!r}
model = dict(
    backbone=dict(
        {delete}type='mmfeataug.AugmentedBackbone',
        backbone=_base_.model.backbone,
        augmentations=[dict(type='mmfeataug.AFAN', at='layer2')],
    )
)
"""
    for delete in ('', '_delete_=True, '):
        path = tmp_path / f'{len(delete)}.py'
        path.write_text(text.format(base=str(base), delete=delete))
        backbone = Config.fromfile(path).model.backbone
        init_default_scope('mmdet')
        if delete:
            assert type(MODELS.build(backbone)).__name__ == 'ResNet'
        else:
            with pytest.raises(TypeError, match=r'got depth, .*add _delete_=True'):
                MODELS.build(backbone)
    # By --cfg-options: what is meant for the backbone has to reach it.
    backbone.init_cfg = None
    with pytest.raises(TypeError, match=r'deeper, as model\.backbone\.backbone\.init_cfg=\.\.\.'):
        MODELS.build(backbone)


def test_train_keeps_the_backbone_rules():
    cfg = faster_rcnn_cfg()
    cfg['backbone'].update(frozen_stages=1, norm_eval=True)
    ours = build_detector(with_wrappers(cfg))
    assert not any(m.training for m in ours.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert not ours.backbone.layer1[0].conv1.weight.requires_grad


def test_neck_none_is_an_identity():
    from mmfeataug.registry import MODELS

    neck = MODELS.build(
        dict(type='mmfeataug.AugmentedNeck', augmentations=[dict(type='mmfeataug.AFAN', at='')])
    )
    features = (torch.ones(1), torch.zeros(1))
    assert neck(features) is features
    assert not neck.state_dict()


@EACH_TASK
class TestHandle:
    def test_loss_is_stock_again_after_detach(self, build, at):
        model = build()
        stock = model.loss
        handle = mmfeataug.attach(model, [afan(at)])
        assert model.loss is handle
        handle.detach()
        assert model.loss == stock
        assert 'loss' not in vars(model)

    def test_attached_keys_and_predictions_are_stock(self, build, at):
        model = build()
        batch = random_test_batch(model)
        keys, names = list(model.state_dict()), [n for n, _ in model.named_parameters()]
        before = predict(model, batch)
        with mmfeataug.attach(model, [afan(at)]):
            assert list(model.state_dict()) == keys
            assert [n for n, _ in model.named_parameters()] == names
            assert_same(predict(model, batch), before)

    def test_attached_model_can_be_copied_and_pickled(self, build, at):
        model = build()
        batch = random_test_batch(model)
        with mmfeataug.attach(model, [afan(at)]):
            losses, gradients = step(model, batch)
            twin = copy.deepcopy(model)
            other = pickle.loads(pickle.dumps(model))
            for copied in (twin, other):
                assert copied.loss.model is copied
        fresh = build()
        with mmfeataug.attach(fresh, [afan(at)]):
            fresh_losses, fresh_gradients = step(fresh, batch)
        assert_same(fresh_losses, losses)
        assert_same(fresh_gradients, gradients)

    def test_attaching_twice_is_refused(self, build, at):
        model = build()
        with (
            mmfeataug.attach(model, [afan(at)]),
            pytest.raises(RuntimeError, match='attached to this model already'),
        ):
            mmfeataug.attach(model, [afan(at)])
