# From random weights, for a laptop's CPU.
_base_ = [
    '../_base_/models/deeplabv3plus_r18-d16_tiny.py',
    '../_base_/datasets/camvid.py',
    '../_base_/seg_default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(192, 256), seg_pad_val=11),
    decode_head=dict(num_classes=11, ignore_index=11),
)

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.0001)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', eta_min=1e-5, power=0.9, begin=50, end=800, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=800, val_interval=200)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=200, max_keep_ckpts=1)
)
auto_scale_lr = dict(enable=False, base_batch_size=4)
