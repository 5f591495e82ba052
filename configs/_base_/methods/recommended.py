# For detectors, see docs/results.md: each image with one distortion, and one adversarial
# view of an early feature that teaches the whole network. For a step of 1.15 times the price:
# _base_.custom_hooks[-1].budget = 1.15
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.AFAN',
                at='backbone.layer2',
                unit='std',
                gamma=0.25,
                weight=0.5,
                learn='network',
            ),
            dict(type='mmfeataug.DistortImages'),
        ],
    )
]
