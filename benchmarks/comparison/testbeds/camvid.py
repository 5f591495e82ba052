# DeepLabV3+ on EfficientNet-Lite0 with ImageNet weights, CamVid at its own 480x360.
_base_ = [
    '../../../configs/_base_/models/deeplabv3plus_r18-d16_tiny.py',
    '../../../configs/_base_/models/enet-lite0.py',
    '../../../configs/_base_/datasets/camvid.py',
    '../../../configs/_base_/seg_default_runtime.py',
]
crop_size = (256, 320)
model = dict(
    data_preprocessor=dict(
        size=crop_size, seg_pad_val=11, mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True
    ),
    backbone=dict(_delete_=True, **_base_.enet_lite0, output_stride=16),
    decode_head=dict(
        in_channels=320,
        channels=128,
        c1_in_channels=24,
        num_classes=11,
        ignore_index=11,
    ),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.3))),
)
max_iters = 1200
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=400)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=max_iters, max_keep_ckpts=1)
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomResize', scale=(480, 360), ratio_range=(0.75, 1.5), keep_ratio=True),
            dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75, ignore_index=11),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ]
    )
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline, serialize_data=False))
