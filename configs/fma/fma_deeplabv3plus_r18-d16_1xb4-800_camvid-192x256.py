# Fine-tunes the baseline's checkpoint at a tenth of its learning rate: train that first, or set
# load_from.
_base_ = '../baseline/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py'
load_from = 'work_dirs/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256/iter_800.pth'
train_cfg = dict(max_iters=400, val_interval=400)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-6, end=400, by_epoch=False)]
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
