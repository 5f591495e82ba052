# Combined augmentations alone: each image with one distortion; a segmentor's first choice.
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[dict(type='mmfeataug.DistortImages', prob=1.0)],
    )
]
