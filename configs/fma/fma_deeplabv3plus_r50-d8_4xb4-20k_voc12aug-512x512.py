# Fine-tunes the baseline's checkpoint at a tenth of its learning rate: train that first, or set
# load_from.
_base_ = '../baseline/deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512.py'
load_from = 'work_dirs/deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512/iter_20000.pth'
optim_wrapper = dict(optimizer=dict(lr=0.001))
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
