# The classifier learns from the view alone, as in the release; the clean loss has a weight, because
# the attack starts from its gradient.
_base_ = '../baseline/resnet50-linear_1xb256_in1k.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=1e-4,
        augmentations=[
            dict(
                type='mmfeataug.SeA',
                at='head.fc',
                weight=1.0,
                eta=0.8,
                alpha=0.01,
                rows=512,
                side='input',
                bn='shared',
                learn='tail',
            ),
        ],
    )
]
