_base_ = '../baseline/deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512.py'
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
