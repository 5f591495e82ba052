_base_ = ['../baseline/finetune_faster-rcnn_r18_fpn_4e_bccd.py', '../_base_/methods/fma.py']
