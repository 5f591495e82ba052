_base_ = '../baseline/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.5,
        augmentations=[
            dict(
                type='mmfeataug.AdvStyle',
                at='inputs',
                weight=0.5,
            ),
        ],
    )
]
