# Fine-tunes the baseline's checkpoint at a tenth of its learning rate: train that first, or set
# load_from.
_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
load_from = 'work_dirs/resnet18_8xb16_cifar10/epoch_200.pth'
train_cfg = dict(max_epochs=20, val_interval=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = dict(
    _delete_=True,
    type='CosineAnnealingLR',
    T_max=20,
    by_epoch=True,
    convert_to_iter_based=True,
)
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.FMA',
                at='backbone',
                weight=1.0,
            ),
        ],
    )
]
