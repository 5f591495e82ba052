# Faster R-CNN on EfficientNet-Lite0 with ImageNet weights, BCCD at 320x240, 8 epochs.
_base_ = '../../../configs/baseline/faster-rcnn_r18_fpn_8e_bccd.py'
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmpretrain.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        features_only=True,
        pretrained=False,
        out_indices=(1, 2, 3, 4),
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/enet-lite0.pth'),
    ),
    neck=dict(in_channels=[24, 40, 112, 320]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.3))))
default_hooks = dict(checkpoint=dict(interval=8))
test_dataloader = dict(batch_size=12, dataset=dict(serialize_data=False))
