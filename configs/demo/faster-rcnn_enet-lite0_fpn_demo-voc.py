# The detector of `make demo`.
_base_ = ['./faster-rcnn_r18_fpn_demo-voc.py', '../_base_/models/enet-lite0.py']
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True),
    backbone=dict(_delete_=True, **_base_.enet_lite0),
    neck=dict(in_channels=[24, 40, 112, 320]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.3))))
