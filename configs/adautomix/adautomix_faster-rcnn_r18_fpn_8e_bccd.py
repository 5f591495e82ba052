# The paper has classification only: targets, places and weights are ours.
_base_ = ['../baseline/faster-rcnn_r18_fpn_8e_bccd.py', '../_base_/methods/adautomix.py']
_base_.custom_hooks[-1].augmentations[0].update(channels=128, compare='neck')
model = dict(
    type='mmfeataug.AugmentedModel',
    of=_base_.model.type,
    augmentations=_base_.custom_hooks[-1].pop('augmentations'),
)
# 0.01 for the generator.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=10.0)}))
