# An attack of one grey level. In detectors it is the stronger one of those against classification
# and localisation: against=[['cls'], ['bbox']].
# To be declared in the model: see configs/README.md.
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.5,
        augmentations=[
            dict(
                type='mmfeataug.AFAN',
                at='inputs',
                unit='pixel',
                gamma=1.0,
                strengths=(1.0,),
                reinject=False,
                weight=0.5,
                bn='separate',
                learn='tail',
            ),
        ],
    )
]
# Second batch norms get no gradient where a view is left out.
find_unused_parameters = True
