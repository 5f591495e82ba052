# Mixtures of two images. The paper has classification only: targets, places and weights are ours.
_base_ = '../baseline/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='EncoderDecoder',
    augmentations=[
        dict(
            type='mmfeataug.AdAutoMix',
            at='backbone.layer3',
            channels=1024,
            compare='decode_head.conv_seg',
            samples=2,
            lam_concat=True,
            weight=0.5,
        ),
    ],
)
# The generator gets no gradient where nothing is mixed.
find_unused_parameters = True
# 0.1 for the generator.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=10.0)}))
custom_hooks = [
    dict(
        type='mmengine.EMAHook',
        ema_type='mmfeataug.CosineEMA',
        momentum=0.001,
        end_momentum=0.0002,
        update_buffers=True,
    ),
    dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5),
]
