# The segmentor of `make demo`: EfficientNet-Lite0 with ImageNet weights, which
# tools/model_converters/efficientnet_lite0.py writes.
_base_ = './deeplabv3plus_r18_demo-cityscapes.py'
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmpretrain.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        features_only=True,
        pretrained=False,
        output_stride=16,
        out_indices=(1, 2, 3, 4),
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/enet-lite0.pth'),
    ),
    decode_head=dict(in_channels=320, c1_in_channels=24),
)
optim_wrapper = dict(
    optimizer=dict(lr=2e-3), paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.3)))
)
max_iters = 160
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=20),
    dict(type='PolyLR', eta_min=1e-5, power=0.9, begin=20, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
