# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Real detectors, segmentors and classifiers, small enough for a laptop, and batches for them."""

import copy
import random
from functools import cache
from importlib import import_module

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

from mmfeataug.datasets.random_batch import random_batch

BN = dict(type='BN', requires_grad=True)
LEVELS = dict(mean=[120.0] * 3, std=[60.0] * 3)
"""Random batches are images of grey levels, normalised."""


BASE = 16
"""Channels of the first stage of a ResNet: a quarter of the usual."""


def resnet(depth=18, **kwargs):
    return dict(
        type='ResNet',
        depth=depth,
        stem_channels=BASE,
        base_channels=BASE,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        norm_cfg=BN,
        norm_eval=False,
        **kwargs,
    )


def faster_rcnn_cfg(backbone=None, channels=(16, 32, 64, 128), width=32, rois=32, fpn=True):
    """Faster R-CNN with a narrow neck and narrow heads."""
    anchors = dict(
        type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]
    )
    coder = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[1.0] * 4)
    assigner = dict(
        type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.3, min_pos_iou=0.3, ignore_iof_thr=-1
    )
    sampler = dict(type='RandomSampler', num=rois, pos_fraction=0.5, neg_pos_ub=-1)
    return dict(
        type='FasterRCNN',
        data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32, **LEVELS),
        backbone=backbone or resnet(),
        neck=dict(type='FPN', in_channels=list(channels), out_channels=width, num_outs=5),
        rpn_head=dict(
            type='RPNHead',
            in_channels=width,
            feat_channels=width,
            anchor_generator=anchors,
            bbox_coder=coder,
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
            loss_bbox=dict(type='L1Loss'),
        ),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=dict(
                type='SingleRoIExtractor',
                roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
                out_channels=width,
                featmap_strides=[4, 8, 16, 32],
            ),
            bbox_head=dict(
                type='Shared2FCBBoxHead',
                in_channels=width,
                fc_out_channels=64,
                roi_feat_size=7,
                num_classes=3,
                bbox_coder=coder,
                loss_cls=dict(type='CrossEntropyLoss'),
                loss_bbox=dict(type='L1Loss'),
            ),
        ),
        train_cfg=dict(
            rpn=dict(
                assigner=assigner,
                sampler={**sampler, 'add_gt_as_proposals': False},
                allowed_border=-1,
                pos_weight=-1,
            ),
            rpn_proposal=dict(
                nms_pre=200,
                max_per_img=100,
                nms=dict(type='nms', iou_threshold=0.7),
                min_bbox_size=0,
            ),
            rcnn=dict(
                assigner={**assigner, 'neg_iou_thr': 0.5, 'min_pos_iou': 0.5},
                sampler={**sampler, 'add_gt_as_proposals': True},
                pos_weight=-1,
            ),
        ),
        test_cfg=dict(
            rpn=dict(
                nms_pre=200,
                max_per_img=100,
                nms=dict(type='nms', iou_threshold=0.7),
                min_bbox_size=0,
            ),
            rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=20),
        ),
    )


def deeplab_cfg(depth=18, width=32, num_classes=5, backbone=None):
    """DeepLabV3+ with narrow heads."""
    base = BASE if depth == 18 else 4 * BASE
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64), **LEVELS),
        backbone=backbone or resnet(depth, dilations=(1, 1, 1, 2), strides=(1, 2, 2, 1)),
        decode_head=dict(
            type='DepthwiseSeparableASPPHead',
            in_channels=8 * base,
            in_index=3,
            channels=width,
            dilations=(1, 3, 6),
            c1_in_channels=base,
            c1_channels=16,
            dropout_ratio=0.1,
            num_classes=num_classes,
            norm_cfg=BN,
            align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
        ),
        auxiliary_head=dict(
            type='FCNHead',
            in_channels=4 * base,
            in_index=2,
            channels=16,
            num_convs=1,
            concat_input=False,
            num_classes=num_classes,
            norm_cfg=BN,
            align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4),
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )


def retinanet_cfg():
    """RetinaNet with a narrow neck and head."""
    two_stage = faster_rcnn_cfg()
    return dict(
        type='RetinaNet',
        data_preprocessor=two_stage['data_preprocessor'],
        backbone=resnet(),
        neck=dict(
            type='FPN',
            in_channels=[16, 32, 64, 128],
            out_channels=32,
            start_level=1,
            add_extra_convs='on_input',
            num_outs=5,
        ),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=3,
            in_channels=32,
            stacked_convs=1,
            feat_channels=32,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=1,
                ratios=[0.5, 1.0, 2.0],
                strides=[8, 16, 32, 64, 128],
            ),
            bbox_coder=two_stage['rpn_head']['bbox_coder'],
            loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25),
            loss_bbox=dict(type='L1Loss'),
        ),
        train_cfg=dict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
        ),
        test_cfg=dict(
            nms_pre=100, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=20
        ),
    )


def upernet_swin_cfg(num_classes=5):
    """UPerNet on a small Swin."""
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64), **LEVELS),
        backbone=dict(
            type='SwinTransformer',
            embed_dims=16,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=4,
            drop_path_rate=0.3,
            out_indices=(0, 1, 2, 3),
        ),
        decode_head=dict(
            type='UPerHead',
            in_channels=[16, 32, 64, 128],
            in_index=[0, 1, 2, 3],
            pool_scales=(1, 2),
            channels=32,
            dropout_ratio=0.1,
            num_classes=num_classes,
            norm_cfg=BN,
            align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss'),
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )


def build_detector(cfg=None, seed=0):
    return _build('mmdet', cfg or faster_rcnn_cfg(), seed)


def _build(package, cfg, seed):
    if package == 'mmdet':
        pytest.importorskip('mmcv.ops', exc_type=ImportError)
    pytest.importorskip(package)
    import_module(f'{package}.utils').register_all_modules(init_default_scope=False)
    init_default_scope(package)
    torch.manual_seed(seed)
    model = import_module(f'{package}.registry').MODELS.build(ConfigDict(copy.deepcopy(cfg)))
    model.init_weights()
    return model.train()


def build_segmentor(cfg=None, seed=0):
    return _build('mmseg', cfg or deeplab_cfg(), seed)


def classifier_cfg(backbone=None, channels=64, num_classes=5, **model):
    """A classifier of mmpretrain with a linear head; a narrow CIFAR ResNet-18 by default."""
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(num_classes=num_classes, **LEVELS),
        backbone=backbone or dict(type='ResNet_CIFAR', depth=18, **NARROW),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=num_classes,
            in_channels=channels,
            loss=dict(type='CrossEntropyLoss'),
        ),
        **model,
    )


NARROW = dict(stem_channels=8, base_channels=8, out_indices=(3,))
CLASSIFIERS = {
    'resnet18': classifier_cfg(),
    'resnet50': classifier_cfg(dict(type='ResNet', depth=50, **NARROW, expansion=4), 256),
    'resnext50': classifier_cfg(
        dict(type='ResNeXt', depth=50, groups=4, width_per_group=4, **NARROW), 256
    ),
    'efficientnet-b0': classifier_cfg(dict(type='EfficientNet', arch='b0'), 1280),
    'swin': classifier_cfg(
        dict(
            type='SwinTransformer',
            arch=dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
            img_size=64,
            window_size=2,
            drop_path_rate=0.3,
        ),
        128,
    ),
}
"""What :func:`build_classifier` knows by name."""


def build_classifier(cfg='resnet18', seed=0):
    pytest.importorskip('torchvision')
    pytest.importorskip('mmpretrain')
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
    from mmpretrain.utils import register_all_modules as register_mmpretrain

    register_mmpretrain(init_default_scope=False)
    init_default_scope('mmpretrain')
    torch.manual_seed(seed)
    cfg = CLASSIFIERS[cfg] if isinstance(cfg, str) else cfg
    model = MMPRETRAIN_MODELS.build(ConfigDict(copy.deepcopy(cfg)))
    model.init_weights()
    return model.train()


@cache
def half_on_cpu():
    """Whether this PyTorch computes in float16 without a GPU, as it does since 2.3."""
    try:
        with torch.autocast('cpu', dtype=torch.float16):
            torch.nn.Conv2d(1, 1, 3)(torch.ones(1, 1, 3, 3)).sum().backward()
    except RuntimeError:
        return False
    return hasattr(torch.amp, 'GradScaler')


needs_half = pytest.mark.skipif(not half_on_cpu(), reason='no float16 on CPUs')
HALF = pytest.param(torch.float16, marks=needs_half)


def random_test_batch(model, size=64, images=2, seed=0):
    return random_batch(model, (size, size), images, seed)


def raw_test_batch(model, **kwargs):
    """As :func:`random_test_batch`, before the data preprocessor."""
    inputs, samples = random_test_batch(model, **kwargs)
    return inputs * LEVELS['std'][0] + LEVELS['mean'][0], samples


def step(model, batch, seed=3):
    """Loss dict of one call and the gradients it gives; every random stream starts from
    ``seed``."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    model.zero_grad(set_to_none=True)
    losses = model.loss(*batch)
    model.parse_losses(losses)[0].backward()
    return losses, gradients(model)


def gradients(model):
    return {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def buffers(model):
    return {n: b.clone() for n, b in model.named_buffers()}


def relative_difference(a, b, floor=0.0):
    """Largest difference of two gradient dicts, relative to each tensor's largest element, or to
    the share ``floor`` of the largest of all."""
    assert [n for n in a if (a[n] is None) != (b[n] is None)] == []
    least = max(1e-12, floor * max(float(g.abs().max()) for g in b.values() if g is not None))
    return max(
        ((a[n] - b[n]).abs().max() / b[n].abs().max().clamp(min=least)).item()
        for n in a
        if a[n] is not None
    )
