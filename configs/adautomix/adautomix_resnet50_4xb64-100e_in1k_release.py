_base_ = ['../baseline/resnet50_4xb64-100e_in1k.py', '../_base_/releases/adautomix.py']
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[dict(_base_.adautomix, channels=1024, samples=2, beta=0.1, norm=True)],
)
_base_.custom_hooks[1].clean_weight = 1.0
