# Strength and weights are ours: trained from random weights, the release's step is too small.
_base_ = '../baseline/resnet18_1xb64_digits.py'
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
