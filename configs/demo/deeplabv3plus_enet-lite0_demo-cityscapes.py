# The segmentor of `make demo`.
_base_ = ['./deeplabv3plus_r18_demo-cityscapes.py', '../_base_/models/enet-lite0.py']
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True),
    backbone=dict(_delete_=True, **_base_.enet_lite0, output_stride=16),
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
