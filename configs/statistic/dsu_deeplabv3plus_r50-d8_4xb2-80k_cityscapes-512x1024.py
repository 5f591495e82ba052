_base_ = '../baseline/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.DSU',
                at='backbone.layer1',
            ),
            dict(
                type='mmfeataug.DSU',
                at='backbone.layer2',
            ),
            dict(
                type='mmfeataug.DSU',
                at='backbone.layer3',
            ),
            dict(
                type='mmfeataug.DSU',
                at='backbone.layer4',
            ),
        ],
    )
]
