# Mixtures of two images. The paper has classification only: targets, places and weights are ours.
_base_ = '../baseline/faster-rcnn_r18_fpn_8e_bccd.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='FasterRCNN',
    augmentations=[
        dict(
            type='mmfeataug.AdAutoMix',
            at='backbone.layer3',
            channels=128,
            compare='neck',
            samples=2,
            lam_concat=True,
            weight=0.5,
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
