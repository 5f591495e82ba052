# As adautomix_*, but the generator always lowers the loss of the teacher.
_base_ = '../baseline/resnet18_1xb64_digits.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[
        dict(
            type='mmfeataug.AdAutoMix',
            at='backbone.layer3',
            channels=64,
            compare='head.fc',
            samples=2,
            lam_concat=True,
            weight=0.5,
            adversarial=False,
        ),
    ],
)
# The generator gets no gradient where nothing is mixed.
find_unused_parameters = True
# 0.02 for the generator.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=10.0)}))
custom_hooks = [
    dict(
        type='mmengine.EMAHook',
        ema_type='mmfeataug.CosineEMA',
        momentum=0.2,
        end_momentum=0.05,
        update_buffers=True,
    ),
    dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5),
]
