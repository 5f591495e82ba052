# The release's classification: five steps at the end of the first stage, equal halves, no
# re-injection.
_base_ = ['../baseline/resnet18_1xb128_cifar10.py', '../_base_/releases/afan.py']
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.5,
        augmentations=[
            dict(
                _base_.release_view,
                at='backbone.layer1',
                gamma=0.5 / 255,
                steps=5,
                weight=0.5,
                strengths=(1.0,),
                learn='tail',
            ),
        ],
    )
]
