custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(type='mmfeataug.PAdaIN', at=f'backbone.layer{stage}', prob=0.01)
            for stage in (1, 2, 3, 4)
        ],
    )
]
