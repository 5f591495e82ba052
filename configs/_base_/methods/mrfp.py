# Random convolutions and NP+ behind the stem, NP+ behind the first stage.
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(type='mmfeataug.MRFP', at='backbone.maxpool', prob=0.5),
            dict(
                type='mmfeataug.NormalizationPerturbation',
                at='backbone.layer1',
                plus=True,
                prob=0.5,
            ),
        ],
    )
]
