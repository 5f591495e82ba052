# Strength and weights are ours: the release tuned its own on pre-trained features.
_base_ = './resnet18_demo-imagenet.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.5,
        augmentations=[
            dict(
                type='mmfeataug.AFAN',
                at='backbone.layer2',
                unit='std',
                gamma=0.1,
                strengths=(0.5, 1.0),
                reinject=(False, True),
                weight=0.25,
            ),
        ],
    )
]
