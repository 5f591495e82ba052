# ResNet-18 with a quarter of the channels, from random weights, digits at 32x32, 8 epochs.
_base_ = '../../../configs/baseline/resnet18_1xb64_digits.py'
param_scheduler = [
    _base_.param_scheduler[0],
    dict(
        type='CosineAnnealingLR', T_max=8, begin=0, end=8, by_epoch=True, convert_to_iter_based=True
    ),
]
test_dataloader = dict(num_workers=0, persistent_workers=False)
