# Fine-tunes a trained network; compares its logits.
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=1.0,
        augmentations=[
            dict(
                type='mmfeataug.StabilityTraining',
                at='head.fc',
                weight=1.0,
            ),
        ],
    )
]
