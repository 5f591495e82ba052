# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The loss of SeA's release, alone and in the heads of mmdet, mmseg and mmpretrain."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from torch.nn import functional as F

from mmfeataug.models import MarginSoftmaxLoss
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

pytestmark = pytest.mark.methods


def test_formula():
    logits, label = torch.randn(6, 4).double(), torch.tensor([0, 3, 1, 2, 2, 0])
    plain = MarginSoftmaxLoss(margin=0.0, temperature=1.0)(logits, label)
    torch.testing.assert_close(plain, F.cross_entropy(logits, label))
    shifted = logits - 0.2 * F.one_hot(label, 4)
    expected = 3 * 0.1 * F.cross_entropy(shifted / 0.1, label)
    found = MarginSoftmaxLoss(margin=0.2, temperature=0.1, loss_weight=3.0)(logits, label)
    torch.testing.assert_close(found, expected)


def test_ignored_labels_and_weights():
    """As mmseg calls it: an ignored label beyond the classes, a weight a pixel, a mean over all."""
    logits, label = torch.randn(2, 4, 3, 3), torch.randint(0, 4, (2, 3, 3))
    label[0, 0] = 255
    loss = MarginSoftmaxLoss()
    found = loss(logits, label, ignore_index=255)
    each = loss(logits, label, ignore_index=255, reduction_override='none')
    assert (each[0, 0] == 0).all()
    torch.testing.assert_close(found, each.mean())
    weight = torch.rand(2, 3, 3)
    torch.testing.assert_close(
        loss(logits, label, weight, avg_factor=5.0, ignore_index=255), (each * weight).sum() / 5
    )


def test_mixed_labels():
    """Shares of the classes, as mmpretrain's Mixup makes them; whole shares are the label."""
    logits, label = torch.randn(6, 4).double(), torch.tensor([0, 3, 1, 2, 2, 0])
    loss, hot = MarginSoftmaxLoss(margin=0.2), F.one_hot(label, 4).double()
    torch.testing.assert_close(loss(logits, hot), loss(logits, label))
    shares = 0.3 * hot + 0.7 * hot.flip(0)
    expected = 0.1 * F.cross_entropy((logits - 0.2 * shares) / 0.1, shares)
    torch.testing.assert_close(loss(logits, shares, avg_factor=6), expected)


@pytest.mark.parametrize(
    ('build', 'cfg', 'path'),
    [
        (build_detector, faster_rcnn_cfg(), ('roi_head', 'bbox_head', 'loss_cls')),
        (build_segmentor, deeplab_cfg(), ('decode_head', 'loss_decode')),
        pytest.param(
            build_classifier, classifier_cfg(), ('head', 'loss'), marks=pytest.mark.classification
        ),
    ],
)
def test_in_heads(build, cfg, path):
    """In the place of the plain loss it is that, with margin 0 and temperature 1."""
    found = []
    for name in ('CrossEntropyLoss', 'mmfeataug.MarginSoftmaxLoss'):
        cfg = copy.deepcopy(cfg)
        node = cfg
        for key in path:
            node = node[key]
        node.update(type=name)
        if build is not build_classifier:
            node.update(use_sigmoid=False)
        if name != 'CrossEntropyLoss':
            node.update(margin=0.0, temperature=1.0)
        model = build(cfg)
        found.append(step(model, random_test_batch(model))[1])
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient)


def test_scores_of_a_detector_are_those_of_its_training():
    model = build_detector(
        {
            **faster_rcnn_cfg(),
            'roi_head': {
                **faster_rcnn_cfg()['roi_head'],
                'bbox_head': {
                    **faster_rcnn_cfg()['roi_head']['bbox_head'],
                    'loss_cls': dict(type='mmfeataug.MarginSoftmaxLoss', temperature=0.1),
                },
            },
        }
    )
    head = model.roi_head.bbox_head
    scores = torch.full((1, head.num_classes + 1), 0.0)
    scores[0, 1] = 0.5
    found = head._predict_by_feat_single(
        torch.tensor([[0.0, 1, 1, 20, 20]]),
        scores,
        torch.zeros(1, 4 * head.num_classes),
        dict(img_shape=(32, 32), scale_factor=(1.0, 1.0)),
        rcnn_test_cfg=ConfigDict(
            score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10
        ),
    )
    torch.testing.assert_close(found.scores.max(), (scores / 0.1).softmax(-1)[0, 1])


def test_settings():
    with pytest.raises(ValueError, match='temperature=0'):
        MarginSoftmaxLoss(temperature=0)
    with pytest.raises(ValueError, match='use_sigmoid=True'):
        MarginSoftmaxLoss(use_sigmoid=True)
