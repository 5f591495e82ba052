# CIFAR-100 as AdAutoMix's release has it: padded by reflection, normalised by values of CIFAR-10.
_base_ = 'mmpretrain::_base_/datasets/cifar100_bs16.py'
data_preprocessor = dict(mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255])
train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4, padding_mode='reflect'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=100, dataset=dict(pipeline=train_pipeline))
