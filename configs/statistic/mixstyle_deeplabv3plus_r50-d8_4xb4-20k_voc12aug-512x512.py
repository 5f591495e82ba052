_base_ = '../baseline/deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.MixStyle',
                at='backbone.layer1',
            ),
            dict(
                type='mmfeataug.MixStyle',
                at='backbone.layer2',
            ),
        ],
    )
]
