_base_ = ['../baseline/finetune_faster-rcnn_r18_fpn_4e_bccd.py', '../_base_/methods/stability.py']
_base_.custom_hooks[-1].augmentations[0].update(at='roi_head.bbox_head.fc_cls', hold=('rpn_head',))
