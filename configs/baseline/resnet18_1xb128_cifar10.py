# Data and schedule of the A-FAN release: trained on the first 45,000 images, watched on the other
# 5,000, normalised by the deviations of CIFAR-10 (mmpretrain's are smaller). mmpretrain has no
# ResNet-56 for CIFAR, which the release trains.
_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
data_preprocessor = dict(std=[62.985, 62.0925, 66.708])
train_dataloader = dict(batch_size=128, dataset=dict(indices=45000))
val_dataloader = dict(batch_size=128, dataset=dict(split='train', indices=-5000))
optim_wrapper = dict(optimizer=dict(weight_decay=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='MultiStepLR', by_epoch=True, milestones=[50, 150], gamma=0.1),
]
