# The detector of `make demo`: EfficientNet-Lite0 with ImageNet weights, which
# tools/model_converters/efficientnet_lite0.py writes.
_base_ = './faster-rcnn_r18_fpn_demo-voc.py'
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
