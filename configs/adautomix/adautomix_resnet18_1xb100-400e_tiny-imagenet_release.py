_base_ = ['../baseline/resnet18_1xb100-400e_tiny-imagenet.py', '../_base_/releases/adautomix.py']
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[dict(_base_.adautomix, beta=0.4, lam_concat=False)],
)
# 0.1 for the generator.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=0.5)}))
_base_.custom_hooks[0].pop('end_momentum')
