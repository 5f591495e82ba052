# The weights are ours: half of the loss clean, a quarter for each view.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.5,
        augmentations=[
            dict(
                type='mmfeataug.AFAN',
                at='backbone.layer1',
                gamma=0.5 / 255,
                strengths=(0.5, 1.0),
                reinject=(False, True),
                weight=0.25,
                unit='absolute',
            ),
        ],
    )
]
