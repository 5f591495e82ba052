# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""No false alarm on stock configs with a block of A-FAN, without data and weights."""

import json

import pytest

from tests.launch import launch
from tests.test_hooks.test_check import ROOT
from tests.zoo.shrink import find_config

STOCK = {
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': 'backbone.layer2',
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py': 'backbone.layer2',
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': 'backbone.layer2',
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py': 'backbone.layer2',
    'mmdet::yolox/yolox_s_8xb8-300e_coco.py': 'backbone.stage2',
    'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py': 'backbone.layer2',
    'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py': 'backbone.layer2',
    'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py': (
        'backbone.stages.1'
    ),
    'mmseg::pspnet/pspnet_r50-d8_4xb2-80k_cityscapes-512x1024.py': 'backbone.layer2',
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py': 'backbone.layers.1.0',
}
CONFIG = """
_base_ = {base!r}
custom_hooks = [
    *_base_.get('custom_hooks', []),
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[dict(type='mmfeataug.AFAN', at={at!r})],
    ),
]
"""


@pytest.mark.slow
@pytest.mark.parametrize('base', STOCK)
def test_no_false_alarm(base, tmp_path):
    config = tmp_path / 'config.py'
    path = find_config(*base.split('::'))
    config.write_text(CONFIG.format(base=str(path), at=STOCK[base]))
    tool = ROOT / 'tools/analysis_tools/check.py'
    result = launch(tool, config, '--json', '--fix', '--size', 128, 128)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout)
    assert found['errors'] == found['warnings'] == found['fixes'] == []
    assert 1 < found['cost'] < 3
    assert any('weights are random' in note for note in found['notes'])
