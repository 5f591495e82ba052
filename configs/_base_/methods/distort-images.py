# Combined augmentations alone: each image with one distortion of noise, blur or colour.
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[dict(type='mmfeataug.DistortImages', prob=1.0)],
    )
]
