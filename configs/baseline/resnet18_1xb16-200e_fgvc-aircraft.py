# The schedule of AdAutoMix's release.
_base_ = [
    'mmpretrain::_base_/models/resnet18.py',
    '../_base_/datasets/fgvc-aircraft.py',
    'mmpretrain::_base_/default_runtime.py',
]
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    head=dict(num_classes=100),
)

train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.001, momentum=0.9, weight_decay=0.0005))
param_scheduler = dict(
    type='CosineAnnealingLR', T_max=200, eta_min=0.0005, by_epoch=True, convert_to_iter_based=True
)
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=1))
auto_scale_lr = dict(enable=False, base_batch_size=16)
