# Fine-tunes the baseline's checkpoint at a tenth of its learning rate: train that first, or set
# load_from.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
load_from = 'work_dirs/resnet50_8xb32_in1k/epoch_100.pth'
train_cfg = dict(max_epochs=10, val_interval=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = dict(
    _delete_=True,
    type='CosineAnnealingLR',
    T_max=10,
    by_epoch=True,
    convert_to_iter_based=True,
)
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.StabilityTraining',
                at='head.fc',
                weight=1.0,
            ),
        ],
    )
]
