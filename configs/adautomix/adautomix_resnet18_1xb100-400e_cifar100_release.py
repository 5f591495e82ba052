_base_ = ['../baseline/resnet18_1xb100-400e_cifar100.py', '../_base_/releases/adautomix.py']
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[dict(_base_.adautomix, lam_concat=False)],
)
_base_.custom_hooks[0].pop('end_momentum')
