# What the rows of AdAutoMix's release share. The similarity has the sign that the authors' code
# gives it.
adautomix = dict(
    type='mmfeataug.AdAutoMix',
    at='backbone.layer3',
    channels=256,
    compare='head.fc',
    samples=3,
    lam_margin=0.03,
    beta=0.3,
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
    dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5),
]
