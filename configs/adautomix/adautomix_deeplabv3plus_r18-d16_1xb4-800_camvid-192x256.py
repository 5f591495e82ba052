# The paper has classification only: targets, places and weights are ours.
_base_ = [
    '../baseline/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py',
    '../_base_/methods/adautomix.py',
]
_base_.custom_hooks[-1].augmentations[0].update(channels=128, compare='decode_head.conv_seg')
model = dict(
    type='mmfeataug.AugmentedModel',
    of=_base_.model.type,
    augmentations=_base_.custom_hooks[-1].pop('augmentations'),
)
# 0.01 for the generator.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=10.0)}))
