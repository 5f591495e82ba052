# A linear classifier on fixed features of unit length, with loss and schedule of the SeA release.
# Its features are torchvision's, the paper's are of self-supervised models.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
model = dict(
    backbone=dict(
        frozen_stages=4,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(_delete_=True, type='mmfeataug.UnitPooling'),
    head=dict(
        loss=dict(_delete_=True, type='mmfeataug.MarginSoftmaxLoss'),
        # the weights that PyTorch gives a linear layer of 2048 inputs; the release's has no bias,
        # here it stays 0
        init_cfg=dict(type='Uniform', layer='Linear', a=-(2048**-0.5), b=2048**-0.5, bias=0),
    ),
)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(
    optimizer=dict(lr=1.6, weight_decay=1e-6),
    paramwise_cfg=dict(custom_keys={'head.fc.bias': dict(lr_mult=0.0)}),
)
param_scheduler = None
