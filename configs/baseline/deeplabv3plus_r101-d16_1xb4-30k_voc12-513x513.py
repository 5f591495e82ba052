_base_ = './deeplabv3plus_r50-d16_1xb4-30k_voc12-513x513.py'
model = dict(
    backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'))
)
