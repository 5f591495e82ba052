_base_ = '../baseline/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.PAdaIN',
                at='backbone.layer1',
                prob=0.01,
            ),
            dict(
                type='mmfeataug.PAdaIN',
                at='backbone.layer2',
                prob=0.01,
            ),
            dict(
                type='mmfeataug.PAdaIN',
                at='backbone.layer3',
                prob=0.01,
            ),
            dict(
                type='mmfeataug.PAdaIN',
                at='backbone.layer4',
                prob=0.01,
            ),
        ],
    )
]
