# At the input of the classifier. The clean loss keeps its weight, since the layers before the
# classifier learn from it alone.
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=1.0,
        augmentations=[
            dict(
                type='mmfeataug.SeA',
                at='head.fc',
                eta=0.8,
                alpha=0.01,
                rows=512,
                weight=0.5,
                learn='tail',
            ),
        ],
    )
]
