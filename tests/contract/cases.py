# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Models and taps that every contract is tested on."""

import pytest

from tests.models import (
    build_classifier,
    build_detector,
    build_segmentor,
    deeplab_cfg,
    faster_rcnn_cfg,
)

SWIN = dict(
    type='SwinTransformer',
    embed_dims=16,
    depths=[1, 1, 1, 1],
    num_heads=[1, 1, 2, 2],
    window_size=4,
    drop_path_rate=0.3,
    out_indices=(0, 1, 2, 3),
)


FC_CLS = 'roi_head.bbox_head.fc_cls'
DETECTOR_METHODS = [
    dict(type='mmfeataug.SeA', at=FC_CLS, background=-1),
    dict(type='mmfeataug.StabilityTraining', at=FC_CLS, hold=('rpn_head',)),
    dict(
        type='mmfeataug.AFAN',
        at='inputs',
        unit='pixel',
        gamma=2.0,
        against=[['cls'], ['bbox']],
        weight=0.2,
    ),
]
"""With a background class, on held proposals, and an attack that tries two of the losses."""


def faster_rcnn_swin():
    return build_detector(faster_rcnn_cfg(backbone=dict(SWIN), channels=(16, 32, 64, 128)))


def faster_rcnn_frozen():
    cfg = faster_rcnn_cfg()
    cfg['backbone'].update(frozen_stages=1, norm_eval=True)
    return build_detector(cfg)


def deeplab_r50():
    """With an eighth of the channels."""
    cfg = deeplab_cfg(depth=50)
    cfg['backbone'].update(base_channels=8)
    cfg['decode_head'].update(in_channels=256, c1_in_channels=32)
    cfg['auxiliary_head'].update(in_channels=128)
    return build_segmentor(cfg)


def deeplab_swin():
    cfg = deeplab_cfg(backbone=dict(SWIN))
    cfg['decode_head'].update(in_channels=128, c1_in_channels=16)
    cfg['auxiliary_head'].update(in_channels=64)
    return build_segmentor(cfg)


# Model, path, side.
TAPS = [
    (build_detector, 'inputs', 'output'),
    (build_detector, 'backbone.conv1', 'output'),
    (build_detector, 'backbone.layer2', 'output'),
    (build_detector, 'backbone.layer3.0.conv2', 'output'),
    (build_detector, 'backbone', 'output'),
    (build_detector, 'neck.fpn_convs.1', 'output'),
    (build_detector, 'neck', 'output'),
    (build_detector, 'rpn_head.rpn_conv', 'output'),
    (build_detector, 'rpn_head', 'input'),
    (build_detector, 'roi_head.bbox_roi_extractor', 'output'),
    (build_detector, 'roi_head.bbox_head.shared_fcs.0', 'input'),
    (build_detector, 'roi_head.bbox_head.shared_fcs.1', 'output'),
    (faster_rcnn_frozen, 'backbone.layer1', 'output'),
    (faster_rcnn_swin, 'backbone.stages.1', 'output'),
    (faster_rcnn_swin, 'backbone.stages.1.blocks.0.attn', 'output'),
    (build_segmentor, 'inputs', 'output'),
    (build_segmentor, 'backbone.layer2', 'output'),
    (build_segmentor, 'decode_head.bottleneck', 'output'),
    (build_segmentor, 'decode_head.sep_bottleneck', 'input'),
    (build_segmentor, 'decode_head.conv_seg', 'input'),
    (build_segmentor, 'auxiliary_head.convs.0', 'output'),
    (deeplab_r50, 'backbone.layer3', 'output'),
    (deeplab_swin, 'backbone.stages.2', 'output'),
    (build_classifier, 'backbone.layer2', 'output'),
    (build_classifier, 'head.fc', 'input'),
]
CLASSIFICATION = pytest.mark.classification


def of_task(build, *case, slow=False):
    """A case with the mark of its task."""
    return pytest.param(
        build,
        *case,
        marks=[CLASSIFICATION] * (build is build_classifier) + [pytest.mark.slow] * slow,
        id='-'.join([build.__name__, *case]),
    )


# Every third; the others take longer.
ALL_TAPS = pytest.mark.parametrize(
    ('build', 'at', 'side'), [of_task(*case, slow=i % 3 != 0) for i, case in enumerate(TAPS)]
)
LEARN = ('tail', 'skips', 'network')
# Every tap with one choice of who learns; the others take longer.
ALL_TAPS_AND_LEARN = pytest.mark.parametrize(
    ('build', 'at', 'side', 'learn'),
    [
        of_task(*case, learn, slow=i % 3 != j)
        for i, case in enumerate(TAPS)
        for j, learn in enumerate(LEARN)
    ],
)
EACH_TASK = pytest.mark.parametrize(
    ('build', 'at'),
    [
        of_task(build_detector, 'backbone.layer2'),
        of_task(build_segmentor, 'backbone.layer3'),
        of_task(build_classifier, 'backbone.layer2'),
    ],
)


def afan(at, side='output', **settings):
    """Two views, one re-injected where the feature allows it; large enough to be told from
    rounding."""
    settings = {
        'unit': 'absolute',
        'gamma': 0.02,
        'strengths': (0.5, 1.0),
        'weight': (0.2, 0.3),
    } | settings
    return dict(type='AFAN', at=at, side=side, **settings)
