_base_ = '../baseline/deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512.py'
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
