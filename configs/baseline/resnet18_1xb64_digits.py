# A ResNet-18 with a quarter of the channels, from random weights: half a minute of one CPU core.
_base_ = [
    '../_base_/datasets/digits.py',
    'mmpretrain::_base_/models/resnet18_cifar.py',
    'mmpretrain::_base_/default_runtime.py',
]
model = dict(
    # The images were 8 x 8: nothing is lost by a stride of 2 in the first stage.
    backbone=dict(stem_channels=16, base_channels=16, strides=(2, 2, 2, 2)),
    head=dict(num_classes=10, in_channels=128),
)

train_cfg = dict(by_epoch=True, max_epochs=8, val_interval=8)
val_cfg = dict()
test_cfg = dict()
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=16),
    dict(type='CosineAnnealingLR', T_max=8, by_epoch=True, convert_to_iter_based=True),
]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05))
default_hooks = dict(logger=dict(interval=16), checkpoint=dict(interval=4, max_keep_ckpts=1))
auto_scale_lr = dict(enable=False, base_batch_size=64)
