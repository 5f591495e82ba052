_base_ = '../baseline/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py'
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
