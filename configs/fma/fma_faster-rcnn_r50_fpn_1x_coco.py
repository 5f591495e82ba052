# Fine-tunes the baseline's checkpoint at a tenth of its learning rate: train that first, or set
# load_from.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/methods/fma.py']
load_from = 'work_dirs/faster-rcnn_r50_fpn_1x_coco/epoch_12.pth'
optim_wrapper = dict(optimizer=dict(lr=0.002))
