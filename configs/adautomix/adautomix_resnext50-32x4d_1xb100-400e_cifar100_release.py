_base_ = ['../baseline/resnext50-32x4d_1xb100-400e_cifar100.py', '../_base_/releases/adautomix.py']
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[dict(_base_.adautomix, channels=1024, lam_concat=False)],
)
_base_.custom_hooks[0].pop('end_momentum')
