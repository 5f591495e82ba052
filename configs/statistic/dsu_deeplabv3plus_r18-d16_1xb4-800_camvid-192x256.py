_base_ = '../baseline/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py'
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
