# A DeepLabV3+ that a laptop CPU trains from random weights in minutes: R18 with half the channels.
_base_ = './deeplabv3plus_r50-d8.py'
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(
        depth=18,
        base_channels=32,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        norm_cfg=norm_cfg,
        init_cfg=None,
    ),
    decode_head=dict(
        in_channels=256,
        channels=64,
        dilations=(1, 3, 6, 9),
        c1_in_channels=32,
        c1_channels=24,
        norm_cfg=norm_cfg,
    ),
    auxiliary_head=None,
)
