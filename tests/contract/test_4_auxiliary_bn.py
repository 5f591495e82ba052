# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Second batch norms: where they live, what they learn, and what stays stock."""

import copy
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import mmfeataug
from mmfeataug.engine.auxiliary import norm_pairs, norms_behind, stock_state_dict
from mmfeataug.models import collect
from tests.models import (
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
from tests.oracle import Unmoved, double, double_precision, held_against_reference

pytestmark = pytest.mark.methods

MODELS = {
    'faster-rcnn': (build_detector, faster_rcnn_cfg, 'backbone.layer1'),
    'retinanet': (build_detector, retinanet_cfg, 'backbone.layer1'),
    'deeplabv3plus': (build_segmentor, deeplab_cfg, 'backbone.layer1'),
    'upernet-swin': (build_segmentor, upernet_swin_cfg, 'backbone.stages.0'),
}
ADVBN = dict(type='mmfeataug.AdvBN', at='backbone.layer1', steps=1, bn='separate')


def augmented(cfg, *augmentations):
    """The config with the model's own type wrapped, as users write it."""
    cfg = copy.deepcopy(cfg)
    return {
        **cfg,
        'type': 'mmfeataug.AugmentedModel',
        'of': cfg['type'],
        'augmentations': list(augmentations) or [ADVBN],
    }


@pytest.fixture
def segmentor():
    return build_segmentor(augmented(deeplab_cfg()))


class TestStockOutside:
    def test_keys_and_parameters(self, segmentor):
        stock = build_segmentor()
        assert type(segmentor) is type(stock)
        keys, extra = list(stock.state_dict()), list(segmentor.state_dict())
        assert extra[: len(keys)] == keys
        assert all(k.startswith('aux_bn.') for k in extra[len(keys) :])
        assert {k.removeprefix('aux_bn.') for k in extra[len(keys) :]} <= set(keys)

    def test_only_norms_behind_the_tap(self, segmentor):
        paths = segmentor.aux_bn.paths
        assert 'backbone.layer2.0.bn1' in paths
        assert 'decode_head.image_pool.1.bn' in paths
        assert not any(p.startswith(('backbone.bn1', 'backbone.layer1')) for p in paths)
        assert norms_behind(segmentor, 'backbone.layer1', 'input')[0] == 'backbone.layer1.0.bn1'
        assert norms_behind(segmentor, 'inputs')[0] == 'backbone.bn1'

    def test_they_begin_as_copies_of_what_is_initialised_or_loaded(self, segmentor):
        def same():
            return all(
                torch.equal(a, b)
                for first, second in norm_pairs(segmentor)
                for a, b in zip(
                    first.state_dict().values(), second.state_dict().values(), strict=True
                )
            )

        # The residual branches' last norms, which init_weights set to 0 after the copy was made.
        assert (segmentor.aux_bn.get_submodule('backbone.layer2.0.bn2').weight == 0).all()
        assert same()
        for norm, _ in norm_pairs(segmentor):
            torch.nn.init.uniform_(norm.weight)
        assert not same()
        stock = build_segmentor(seed=5)
        for m in stock.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(m.weight)
        segmentor.load_state_dict(stock.state_dict(), strict=True)
        assert same()
        weight = segmentor.backbone.layer2[0].bn1.weight
        assert torch.equal(weight, stock.backbone.layer2[0].bn1.weight)

    def test_backbone_door(self):
        cfg = faster_rcnn_cfg()
        inner = {**ADVBN, 'at': 'layer1'}
        cfg['backbone'] = dict(
            type='mmfeataug.AugmentedBackbone', backbone=cfg['backbone'], augmentations=[inner]
        )
        model = build_detector(cfg)
        assert all(k.startswith('backbone.') for k in model.state_dict() if 'aux_bn' in k)
        assert set(model.state_dict()) - set(build_detector().state_dict())
        with mmfeataug.attach(model, collect(model), strict=True):
            _, gradients = step(model, random_test_batch(model))
        assert gradients['backbone.aux_bn.layer2.0.bn2.weight'].abs().max() > 0

    def test_predictions_are_stock(self, segmentor):
        stock = build_segmentor()
        stock.load_state_dict(stock_state_dict(segmentor.state_dict()), strict=True)
        batch = random_test_batch(stock)
        for model in (stock, segmentor):
            model.eval()
        with torch.no_grad():
            assert torch.equal(stock(batch[0], mode='tensor'), segmentor(batch[0], mode='tensor'))

    def test_copies_and_pickles(self, segmentor):
        twin = copy.deepcopy(segmentor)
        pairs = norm_pairs(twin)
        assert pairs
        assert pairs[0][0] is twin.get_submodule(twin.aux_bn.paths[0])


class TestTraining:
    def run(self, model, **settings):
        batch = random_test_batch(model)
        with mmfeataug.attach(
            model, [{**ADVBN, 'weight': 1.0, **settings}], clean_weight=1.0, strict=True
        ):
            return step(model, batch)

    def test_each_set_sees_its_own(self, segmentor):
        """The clean pass teaches the first set as stock does, the view the second one."""
        stock = build_segmentor()
        stock.load_state_dict(stock_state_dict(segmentor.state_dict()))
        batch = random_test_batch(stock)
        _, plain = step(stock, batch)
        before = copy.deepcopy(segmentor.state_dict())
        _, gradients = self.run(segmentor)
        after = segmentor.state_dict()
        for name in ('running_mean', 'running_var', 'num_batches_tracked'):
            key = f'backbone.layer3.0.bn1.{name}'
            torch.testing.assert_close(after[key], stock.state_dict()[key])
            assert not torch.equal(after[f'aux_bn.{key}'], before[f'aux_bn.{key}'])
            assert not torch.equal(after[f'aux_bn.{key}'], after[key]) or name[0] == 'n'
        assert after['aux_bn.backbone.layer3.0.bn1.num_batches_tracked'] == 1
        key = 'backbone.layer3.0.bn2.weight'
        torch.testing.assert_close(gradients[key], plain[key])
        assert gradients[f'aux_bn.{key}'].abs().max() > 0
        # The layers in between learn from both.
        assert not torch.allclose(
            gradients['decode_head.conv_seg.weight'], plain['decode_head.conv_seg.weight']
        )

    @pytest.mark.parametrize(
        ('name', 'method', 'learn'),
        [
            *(('deeplabv3plus', 'AdvBN', learn) for learn in ('tail', 'network')),
            *(('deeplabv3plus', method, 'tail') for method in ('AFAN', 'MixStyle')),
            ('faster-rcnn', 'AdvBN', 'tail'),
            *((name, 'AdvBN', 'network') for name in ('retinanet', 'upernet-swin')),
        ],
    )
    def test_gradients_are_those_of_the_reference(self, name, method, learn):
        build, cfg, at = MODELS[name]
        config = dict(type=method, at=at, bn='separate', learn=learn)
        config |= {'MixStyle': dict(as_view=True, prob=1.0)}.get(method, {})
        declared = {**config, 'type': f'mmfeataug.{method}'}
        with double_precision():
            model, batch = double(lambda: build(augmented(cfg(), declared)))
            _, gradients = held_against_reference(model, [config], batch)
        assert any(gradients[n] is not None for n in gradients if n.startswith('aux_bn.'))

    def test_frozen_statistics_stay(self):
        """mmdet's usual setting: both sets normalise with what was loaded, weights learn."""
        cfg = faster_rcnn_cfg()
        cfg['backbone'].update(norm_eval=True, frozen_stages=1)
        model = build_detector(augmented(cfg))
        before = copy.deepcopy(model.state_dict())
        _, gradients = self.run(model)
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key]), key
        assert gradients['aux_bn.backbone.layer2.0.bn2.weight'].abs().max() > 0
        assert gradients['backbone.layer1.0.conv1.weight'] is None

    def test_dropped_view_teaches_nothing(self, segmentor):
        """A view that passes the batch norms and breaks behind them."""
        passes = itertools.count()
        segmentor.decode_head.conv_seg.register_forward_hook(
            # The clean pass, the strict one, that of the one step, and the view's.
            lambda _, __, out: out * math.nan if next(passes) == 3 else None
        )
        before = copy.deepcopy(segmentor.aux_bn.state_dict())
        losses, _ = self.run(segmentor)
        assert next(passes) == 4
        assert losses['advbn.dropped'] == 1
        for key, value in segmentor.aux_bn.state_dict().items():
            assert torch.equal(value, before[key]), key


class TestInferenceAPIs:
    """They build the model from the plugin's config, as stock ones do."""

    ROOT = Path(__file__).resolve().parents[2] / 'configs/advbn'

    def test_segmentor(self):
        pytest.importorskip('mmseg')
        from mmseg.apis import inference_model, init_model

        name = 'advbn_deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py'
        model = init_model(str(self.ROOT / name), device='cpu')
        found = inference_model(model, np.zeros((64, 96, 3), np.uint8))
        assert found.pred_sem_seg.data.shape[-2:] == (64, 96)

    def test_detector(self):
        pytest.importorskip('mmdet')
        from mmdet.apis import inference_detector, init_detector

        name = 'advbn_faster-rcnn_r18_fpn_8e_bccd.py'
        model = init_detector(str(self.ROOT / name), device='cpu', palette='random')
        found = inference_detector(model, np.zeros((64, 96, 3), np.uint8))
        assert hasattr(found, 'pred_instances')


class TestRefusals:
    def test_no_second_norms(self):
        with pytest.raises(ValueError, match=r'backbone.layer2.0.bn1.*AugmentedModel'):
            mmfeataug.attach(build_detector(), [ADVBN])

    def test_no_norm_behind_the_tap(self):
        model = build_detector()
        config = {**ADVBN, 'at': 'neck'}
        with pytest.raises(ValueError, match=r"no batch norm behind this place; use bn='shared'"):
            mmfeataug.attach(model, [config])

    def test_backbone_door_does_not_reach_heads(self):
        cfg = upernet_swin_cfg()
        inner = {**ADVBN, 'at': 'stages.0'}
        cfg['backbone'] = dict(
            type='mmfeataug.AugmentedBackbone', backbone=cfg['backbone'], augmentations=[inner]
        )
        model = build_segmentor(cfg)
        with pytest.raises(ValueError, match=r'decode_head.*AugmentedModel'):
            mmfeataug.attach(model, collect(model))


class TestLayers:
    """In-place methods declared by a wrapper need no hook."""

    def layer(self, kind='MixStyle', **settings):
        cfg = deeplab_cfg()
        entry = dict(type=f'mmfeataug.{kind}', at='layer1', prob=1.0, **settings)
        cfg['backbone'] = dict(
            type='mmfeataug.AugmentedBackbone', backbone=cfg['backbone'], augmentations=[entry]
        )
        return build_segmentor(cfg)

    @pytest.mark.parametrize(
        ('kind', 'settings'),
        [
            ('MixStyle', {}),
            ('NormalizationPerturbation', dict(plus=True)),
        ],
    )
    def test_training_is_changed_and_evaluation_is_not(self, kind, settings, recwarn):
        model, stock = self.layer(kind, **settings), build_segmentor()
        batch = random_test_batch(stock)
        assert list(model.state_dict()) == list(stock.state_dict())
        ours, theirs = step(model, batch, seed=0)[1], step(stock, batch, seed=0)[1]
        assert relative_difference(ours, theirs) > 1e-3
        assert not [w for w in recwarn if 'nothing drives' in str(w.message)]
        model.load_state_dict(stock.state_dict())
        for m in (model, stock):
            m.eval()
        with torch.no_grad():
            assert torch.equal(model(batch[0], mode='tensor'), stock(batch[0], mode='tensor'))

    def test_copies_carry_it(self):
        model = copy.deepcopy(self.layer())
        stock = build_segmentor()
        batch = random_test_batch(stock)
        assert relative_difference(step(model, batch)[1], step(stock, batch)[1]) > 1e-3

    def test_taps_behind_it_replay(self):
        """Views meet the draws of the layer again: unmoved ones have the clean loss."""
        model = self.layer()
        view = Unmoved(at='backbone.layer2', weight=0.5, bn='frozen')
        with mmfeataug.attach(model, [view], clean_weight=0.5, strict=True):
            losses, _ = step(model, random_test_batch(model))
        clean = {k: v for k, v in losses.items() if not k.startswith(('unmoved', 'feature_aug'))}
        assert torch.equal(losses['unmoved.loss_0'], model.parse_losses(clean)[0].detach())
