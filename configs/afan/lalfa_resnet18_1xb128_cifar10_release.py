# The release's L-ALFA: three steps at every place, half of the loss shared by the places, strengths
# at a tenth of the learning rate, their l1 norm in the loss. Its nine places are of a ResNet-56;
# these are ResNet-18's blocks.
_base_ = ['../baseline/resnet18_1xb128_cifar10.py', '../_base_/releases/afan.py']
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[
        dict(
            _base_.release_view,
            type='mmfeataug.LALFA',
            at=f'backbone.layer{stage}.{block}',
            gamma=1 / 255,
            steps=3,
            weight=0.5 / 8,
            learn='tail',
        )
        for stage in (1, 2, 3, 4)
        for block in (0, 1)
    ]
    + [dict(type='mmfeataug.StrengthNorm', at='neck', l1=1.0)],
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=0.1, decay_mult=0.0)})
)
# Strengths get no gradient where a view is left out.
find_unused_parameters = True
custom_hooks = [dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5)]
