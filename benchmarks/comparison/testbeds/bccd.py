# Faster R-CNN on EfficientNet-Lite0 with ImageNet weights, BCCD at 320x240, 8 epochs.
_base_ = [
    '../../../configs/baseline/faster-rcnn_r18_fpn_8e_bccd.py',
    '../../../configs/_base_/models/enet-lite0.py',
]
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True),
    backbone=dict(_delete_=True, **_base_.enet_lite0),
    neck=dict(in_channels=[24, 40, 112, 320]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.3))))
default_hooks = dict(checkpoint=dict(interval=8))
test_dataloader = dict(batch_size=12, dataset=dict(serialize_data=False))
