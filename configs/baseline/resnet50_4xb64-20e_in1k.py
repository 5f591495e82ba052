# Schedule of the AdvBN release: torchvision's ResNet-50 with its classifier, fine-tuned behind the
# first stage.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
pretrained = dict(type='Pretrained', checkpoint='torchvision://resnet50')
model = dict(
    backbone=dict(
        frozen_stages=1, norm_cfg=dict(type='SyncBN', requires_grad=True), init_cfg=pretrained
    ),
    head=dict(init_cfg=pretrained),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=0.001))
param_scheduler = dict(milestones=[10], _delete_=True, type='MultiStepLR', by_epoch=True, gamma=0.1)
train_cfg = dict(max_epochs=20)
