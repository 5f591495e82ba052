# Clean and adversarial loss are summed, as in the paper; batch norms behind the tap have a second
# set.
# To be declared in the model: see configs/README.md.
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=1.0,
        augmentations=[
            dict(
                type='mmfeataug.AdvBN',
                at='backbone.layer1',
                steps=6,
                step_size=0.2,
                eps=1.1,
                weight=1.0,
                bn='separate',
                learn='tail',
            ),
        ],
    )
]
# Second batch norms get no gradient where a view is left out.
find_unused_parameters = True
