# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Real detectors and segmentors, small enough for a laptop, and batches for them."""

import copy

import numpy as np
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules as register_mmdet
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules as register_mmseg

BN = dict(type='BN', requires_grad=True)


def resnet(depth=18, **kwargs):
    return dict(
        type='ResNet',
        depth=depth,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        norm_cfg=BN,
        norm_eval=False,
        **kwargs,
    )


def faster_rcnn_cfg(backbone=None, channels=(64, 128, 256, 512), width=32, rois=32, fpn=True):
    """Faster R-CNN with a narrow neck and narrow heads."""
    anchors = dict(type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64])
    coder = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[1.0] * 4)
    assigner = dict(
        type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.3, min_pos_iou=0.3, ignore_iof_thr=-1
    )
    sampler = dict(type='RandomSampler', num=rois, pos_fraction=0.5, neg_pos_ub=-1)
    return dict(
        type='FasterRCNN',
        data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
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
            rpn=dict(assigner=assigner, sampler=sampler, allowed_border=-1, pos_weight=-1),
            rpn_proposal=dict(nms_pre=200, max_per_img=100, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
            rcnn=dict(
                assigner={**assigner, 'neg_iou_thr': 0.5, 'min_pos_iou': 0.5},
                sampler={**sampler, 'add_gt_as_proposals': True},
                pos_weight=-1,
            ),
        ),
        test_cfg=dict(
            rpn=dict(nms_pre=200, max_per_img=100, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
            rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=20),
        ),
    )


def deeplab_cfg(depth=18, width=32, num_classes=5, backbone=None):
    """DeepLabV3+ with narrow heads."""
    channels = (512, 64, 1024) if depth == 18 else (2048, 256, 1024)
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)),
        backbone=backbone or resnet(depth, dilations=(1, 1, 1, 2), strides=(1, 2, 2, 1)),
        decode_head=dict(
            type='DepthwiseSeparableASPPHead',
            in_channels=channels[0],
            in_index=3,
            channels=width,
            dilations=(1, 3, 6),
            c1_in_channels=channels[1],
            c1_channels=16,
            dropout_ratio=0.1,
            num_classes=num_classes,
            norm_cfg=BN,
            align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
        ),
        auxiliary_head=dict(
            type='FCNHead',
            in_channels=256 if depth == 18 else 1024,
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


def build_detector(cfg=None, seed=0):
    register_mmdet(init_default_scope=False)
    init_default_scope('mmdet')
    torch.manual_seed(seed)
    model = MMDET_MODELS.build(ConfigDict(copy.deepcopy(cfg or faster_rcnn_cfg())))
    model.init_weights()
    return model.train()


def build_segmentor(cfg=None, seed=0):
    register_mmseg(init_default_scope=False)
    init_default_scope('mmseg')
    torch.manual_seed(seed)
    model = MMSEG_MODELS.build(ConfigDict(copy.deepcopy(cfg or deeplab_cfg())))
    model.init_weights()
    return model.train()


def detection_batch(size=64, images=2, seed=0):
    """``(inputs, data_samples)`` as the data preprocessor gives them."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(images):
        corner = rng.uniform(0, size * 0.5, (3, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(size * 0.2, size * 0.5, (3, 2))], 1)
        gt = InstanceData(bboxes=torch.tensor(boxes).float(), labels=torch.tensor([0, 1, 2]))
        sample = DetDataSample(gt_instances=gt, ignored_instances=InstanceData(bboxes=torch.zeros(0, 4)))
        shape = dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size))
        sample.set_metainfo(dict(batch_input_shape=(size, size), scale_factor=(1.0, 1.0), **shape))
        samples.append(sample)
    return torch.tensor(rng.normal(size=(images, 3, size, size))).float(), samples


def segmentation_batch(size=64, images=2, num_classes=5, seed=0):
    """``(inputs, data_samples)`` as the data preprocessor gives them; one stripe is to be ignored."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(images):
        labels = torch.tensor(rng.integers(0, num_classes, (1, size // 8, size // 8)))
        labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
        labels[:, :4] = 255
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
        sample.set_metainfo(dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size)))
        samples.append(sample)
    return torch.tensor(rng.normal(size=(images, 3, size, size))).float(), samples
