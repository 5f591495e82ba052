# A linear classifier on fixed features of unit length, with loss and schedule of the SeA release.
# Its features are torchvision's, the paper's are of self-supervised models.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
model = dict(
    backbone=dict(
        frozen_stages=4,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(_delete_=True, type='mmfeataug.UnitPooling'),
    head=dict(loss=dict(_delete_=True, type='mmfeataug.MarginSoftmaxLoss')),
)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=1.6, weight_decay=1e-6))
param_scheduler = None
