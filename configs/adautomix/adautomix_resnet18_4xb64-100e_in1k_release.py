_base_ = ['../baseline/resnet18_4xb64-100e_in1k.py', '../_base_/releases/adautomix.py']
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[dict(_base_.adautomix, samples=2, beta=0.1)],
)
_base_.custom_hooks[1].clean_weight = 1.0
