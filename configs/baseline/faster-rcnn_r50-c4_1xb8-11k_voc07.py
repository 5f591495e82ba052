# The A-FAN release's VOC2007 baseline.
_base_ = [
    '../_base_/models/faster-rcnn_r50-c4_release.py',
    '../_base_/datasets/voc07_detection.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(roi_head=dict(bbox_head=dict(num_classes=20)))
train_dataloader = dict(batch_size=8, num_workers=4, sampler=dict(type='InfiniteSampler'))

train_cfg = dict(type='IterBasedTrainLoop', max_iters=11_250, val_interval=1250)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR', begin=0, end=11_250, by_epoch=False, milestones=[6250, 8750], gamma=0.1
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.008, momentum=0.9, weight_decay=0.0005),
)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1250))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=8)
