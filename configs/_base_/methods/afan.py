# One adversarial view, a quarter of the feature's deviation away; it teaches the whole network.
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
        ],
    )
]
