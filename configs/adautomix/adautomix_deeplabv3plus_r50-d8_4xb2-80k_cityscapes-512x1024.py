# The paper has classification only: targets, places and weights are ours.
_base_ = [
    '../baseline/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py',
    '../_base_/methods/adautomix.py',
]
_base_.custom_hooks[0].update(momentum=0.001, end_momentum=0.0002)
_base_.custom_hooks[-1].augmentations[0].update(channels=1024, compare='decode_head.conv_seg')
model = dict(
    type='mmfeataug.AugmentedModel',
    of=_base_.model.type,
    augmentations=_base_.custom_hooks[-1].pop('augmentations'),
)
# 0.1 for the generator.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=10.0)}))
