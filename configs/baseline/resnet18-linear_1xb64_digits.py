# A new classifier on fixed features of unit length, those of the other digits config: train that
# first.
_base_ = './resnet18_1xb64_digits.py'
model = dict(
    backbone=dict(
        frozen_stages=4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/resnet18_1xb64_digits/epoch_8.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(_delete_=True, type='mmfeataug.UnitPooling'),
    head=dict(loss=dict(_delete_=True, type='mmfeataug.MarginSoftmaxLoss')),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=1.6, momentum=0.9, weight_decay=1e-6)
)
