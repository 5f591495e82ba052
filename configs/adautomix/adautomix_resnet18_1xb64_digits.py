_base_ = ['../baseline/resnet18_1xb64_digits.py', '../_base_/methods/adautomix.py']
_base_.custom_hooks[0].update(momentum=0.2, end_momentum=0.05)
_base_.custom_hooks[-1].augmentations[0].channels = 64
model = dict(
    type='mmfeataug.AugmentedModel',
    of=_base_.model.type,
    augmentations=_base_.custom_hooks[-1].pop('augmentations'),
)
# 0.02 for the generator.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=10.0)}))
