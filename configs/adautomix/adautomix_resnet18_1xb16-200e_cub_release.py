_base_ = ['../baseline/resnet18_1xb16-200e_cub.py', '../_base_/releases/adautomix.py']
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[dict(_base_.adautomix, random_samples=True)],
)
# 0.1 for the generator.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=100.0)}))
