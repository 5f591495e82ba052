# From random weights, for a laptop's CPU.
_base_ = [
    '../_base_/models/faster-rcnn_r18_fpn_tiny.py',
    '../_base_/datasets/bccd_detection.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=8, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', begin=0, end=8, by_epoch=True, eta_min_ratio=0.01),
]
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.0001)
)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=2, max_keep_ckpts=1))
auto_scale_lr = dict(enable=False, base_batch_size=4)
