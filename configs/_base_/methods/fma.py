# Fine-tunes a trained network.
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=1.0,
        augmentations=[
            dict(
                type='mmfeataug.FMA',
                at='backbone',
                weight=1.0,
            ),
        ],
    )
]
