_base_ = ['../baseline/faster-rcnn_r18_fpn_8e_bccd.py', '../_base_/methods/distort-images.py']
