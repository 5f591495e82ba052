custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.MoEx',
                at='backbone.layer1',
                axes='channel',
                prob=0.5,
            ),
        ],
    )
]
