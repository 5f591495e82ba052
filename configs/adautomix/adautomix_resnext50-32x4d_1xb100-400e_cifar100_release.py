# The authors' settings, the sign of the similarity included.
_base_ = '../baseline/resnext50-32x4d_1xb100-400e_cifar100.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[
        dict(
            type='mmfeataug.AdAutoMix',
            at='backbone.layer3',
            channels=1024,
            compare='head.fc',
            samples=3,
            lam_margin=0.03,
            beta=0.3,
            lam_concat=False,
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
custom_hooks = [
    dict(type='mmengine.EMAHook', ema_type='mmfeataug.CosineEMA', update_buffers=True),
    dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5),
]
