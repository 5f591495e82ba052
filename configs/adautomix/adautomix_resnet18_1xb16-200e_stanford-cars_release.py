# The authors' settings, the sign of the similarity included.
_base_ = '../baseline/resnet18_1xb16-200e_stanford-cars.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[
        dict(
            type='mmfeataug.AdAutoMix',
            at='backbone.layer3',
            channels=256,
            compare='head.fc',
            samples=3,
            lam_margin=0.03,
            beta=0.5,
            lam_concat=True,
            relu=True,
            similarity='lower',
            mixup_weight=0.5,
            alpha=1.0,
            upsample='bilinear',
            adversarial=True,
            weight=1.0,
            teacher_bn='frozen',
            bn='shared',
        ),
    ],
)
# The generator gets no gradient where nothing is mixed.
find_unused_parameters = True
# 0.1 for the generator.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=100.0)}))
custom_hooks = [
    dict(
        type='mmengine.EMAHook',
        ema_type='mmfeataug.CosineEMA',
        end_momentum=1e-05,
        update_buffers=True,
    ),
    dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5),
]
