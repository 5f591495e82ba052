_base_ = 'mmdet::cityscapes/faster-rcnn_r50_fpn_1x_cityscapes.py'
# The stock config starts from a COCO detector whose download address is dead: start from ImageNet
# weights.
model = dict(
    backbone=dict(
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='torchvision://resnet50')
    )
)
load_from = None
# The stock one loads a single image a GPU (8 GPUs): too few for statistics of a batch.
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=8)
