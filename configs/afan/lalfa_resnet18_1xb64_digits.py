# Strengths of the four stages are learnt; sizes are ours.
_base_ = '../baseline/resnet18_1xb64_digits.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[
        dict(
            type='mmfeataug.LALFA',
            at=f'backbone.layer{stage}',
            gamma=0.1,
            unit='std',
            steps=1,
            weight=0.5 / 4,
        )
        for stage in (1, 2, 3, 4)
    ],
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=5.0, decay_mult=0.0)})
)
# Strengths get no gradient where a view is left out.
find_unused_parameters = True
custom_hooks = [dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5)]
