# The A-FAN release's COCO2017 baseline.
_base_ = [
    '../_base_/models/faster-rcnn_r50-c4_release.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(
    rpn_head=dict(anchor_generator=dict(scales=[4, 8, 16, 32]), loss_bbox=dict(beta=0.1111)),
    test_cfg=dict(rpn=dict(max_per_img=1000), rcnn=dict(max_per_img=100)),
)
train_dataloader = dict(batch_size=8, num_workers=4, sampler=dict(type='InfiniteSampler'))

train_cfg = dict(type='IterBasedTrainLoop', max_iters=180_000, val_interval=20_000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=180_000,
        by_epoch=False,
        milestones=[120_000, 160_000],
        gamma=0.1,
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001),
)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=20_000))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=8)
