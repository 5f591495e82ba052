# Combined augmentations alone: each image with one distortion of noise, blur or colour. Segmentors:
# prob=0.5, half of the images, and a longer training (docs/results.md).
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[dict(type='mmfeataug.DistortImages', prob=1.0)],
    )
]
