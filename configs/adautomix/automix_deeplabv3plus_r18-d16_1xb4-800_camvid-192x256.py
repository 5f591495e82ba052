# As adautomix_*, but the generator always lowers the loss of the teacher.
_base_ = '../baseline/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='EncoderDecoder',
    augmentations=[
        dict(
            type='mmfeataug.AdAutoMix',
            at='backbone.layer3',
            channels=128,
            compare='decode_head.conv_seg',
            samples=2,
            lam_concat=True,
            weight=0.5,
            adversarial=False,
        ),
    ],
)
# The generator gets no gradient where nothing is mixed.
find_unused_parameters = True
# 0.01 for the generator.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=10.0)}))
custom_hooks = [
    dict(
        type='mmengine.EMAHook',
        ema_type='mmfeataug.CosineEMA',
        momentum=0.1,
        end_momentum=0.02,
        update_buffers=True,
    ),
    dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5),
]
