# The release's classification: five steps at the end of the first stage, equal halves, no
# re-injection.
_base_ = '../baseline/resnet18_1xb128_cifar10.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.5,
        augmentations=[
            dict(
                type='mmfeataug.AFAN',
                at='backbone.layer1',
                gamma=0.5 / 255,
                steps=5,
                weight=0.5,
                unit='absolute',
                strengths=(1.0,),
                axes='channel',
                direction='gradient',
                side='output',
                bn='shared',
                learn='tail',
            ),
        ],
    )
]
