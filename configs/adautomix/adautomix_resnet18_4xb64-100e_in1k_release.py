# The authors' settings, the sign of the similarity included.
_base_ = '../baseline/resnet18_4xb64-100e_in1k.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[
        dict(
            type='mmfeataug.AdAutoMix',
            at='backbone.layer3',
            channels=256,
            compare='head.fc',
            samples=2,
            lam_margin=0.03,
            beta=0.1,
            lam_concat=True,
            relu=True,
            similarity='lower',
            alpha=1.0,
            upsample='bilinear',
            adversarial=True,
            weight=1.0,
            mixup_weight=0.5,
            teacher_bn='frozen',
            bn='shared',
        ),
    ],
)
# The generator gets no gradient where nothing is mixed.
find_unused_parameters = True
custom_hooks = [
    dict(
        type='mmengine.EMAHook',
        ema_type='mmfeataug.CosineEMA',
        end_momentum=1e-05,
        update_buffers=True,
    ),
    dict(type='mmfeataug.FeatureAugHook', clean_weight=1.0),
]
