custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.5,
        augmentations=[
            dict(
                type='mmfeataug.AdvStyle',
                at='inputs',
                gamma=1.0,
                weight=0.5,
                learn='tail',
            ),
        ],
    )
]
