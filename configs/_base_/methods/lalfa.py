# Strengths of the four stages are learnt; sizes are ours.
# To be declared in the model: see configs/README.md.
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.5,
        augmentations=[
            dict(
                type='mmfeataug.LALFA',
                at=f'backbone.layer{stage}',
                unit='std',
                gamma=0.1,
                steps=1,
                weight=0.5 / 4,
            )
            for stage in (1, 2, 3, 4)
        ],
    )
]
# Strengths get no gradient where a view is left out.
find_unused_parameters = True
