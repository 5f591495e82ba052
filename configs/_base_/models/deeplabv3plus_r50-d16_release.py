# DeepLabV3+ as the A-FAN release trains it: output stride 16, 256 channels, a decoder of ordinary
# convolutions, no auxiliary head, slow BN momentum in the backbone, loss averaged over the labelled
# pixels only.
_base_ = './deeplabv3plus_r50-d8.py'
model = dict(
    backbone=dict(
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        norm_cfg=dict(type='SyncBN', requires_grad=True, momentum=0.01),
    ),
    decode_head=dict(
        type='mmfeataug.PlainDeepLabV3PlusHead',
        channels=256,
        dilations=(1, 6, 12, 18),
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0, avg_non_ignore=True
        ),
    ),
    auxiliary_head=None,
)
