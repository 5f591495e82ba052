# The clean loss keeps its weight, since the layers before the classifier learn from it alone.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.SeA',
                at='head.fc',
                weight=0.5,
            ),
        ],
        clean_weight=1.0,
    )
]
