_base_ = './faster-rcnn_r50-c4_1xb8-11k_voc07.py'
pretrained = dict(type='Pretrained', checkpoint='torchvision://resnet101')
model = dict(
    backbone=dict(depth=101, init_cfg=pretrained),
    # layer4 is the same in both depths, its weights are not
    roi_head=dict(shared_head=dict(depth=101, init_cfg=pretrained)),
)
