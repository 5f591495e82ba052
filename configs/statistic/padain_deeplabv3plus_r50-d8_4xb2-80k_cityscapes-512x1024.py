_base_ = '../baseline/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py'
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
