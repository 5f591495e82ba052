_base_ = ['../baseline/resnet18_1xb64_digits.py', '../_base_/methods/lalfa.py']
model = dict(
    type='mmfeataug.AugmentedModel',
    of=_base_.model.type,
    augmentations=_base_.custom_hooks[-1].pop('augmentations'),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=5.0, decay_mult=0.0)})
)
