_base_ = ['../baseline/faster-rcnn_r50_fpn_1x_cityscapes.py', '../_base_/methods/afan.py']
