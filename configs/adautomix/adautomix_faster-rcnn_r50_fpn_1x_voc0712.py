# Mixtures of two images. The paper has classification only: targets, places and weights are ours.
_base_ = 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='FasterRCNN',
    augmentations=[
        dict(
            type='mmfeataug.AdAutoMix',
            at='backbone.layer3',
            channels=1024,
            compare='neck',
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
        momentum=0.01,
        end_momentum=0.001,
        update_buffers=True,
    ),
    dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5),
]
