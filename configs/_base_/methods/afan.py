# Two points on the way of one signed step; strength and weights are ours.
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.5,
        augmentations=[
            dict(
                type='mmfeataug.AFAN',
                at='backbone.layer2',
                unit='std',
                gamma=0.1,
                strengths=(0.5, 1.0),
                reinject=(False, True),
                weight=0.25,
                learn='tail',
            ),
        ],
    )
]
