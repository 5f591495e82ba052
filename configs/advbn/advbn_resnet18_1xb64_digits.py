_base_ = ['../baseline/resnet18_1xb64_digits.py', '../_base_/methods/advbn.py']
model = dict(
    type='mmfeataug.AugmentedModel',
    of=_base_.model.type,
    augmentations=_base_.custom_hooks[-1].pop('augmentations'),
)
