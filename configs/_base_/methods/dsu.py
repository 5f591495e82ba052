custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(type='mmfeataug.DSU', at=f'backbone.layer{stage}', factor=1.0, prob=0.5)
            for stage in (1, 2, 3, 4)
        ],
    )
]
