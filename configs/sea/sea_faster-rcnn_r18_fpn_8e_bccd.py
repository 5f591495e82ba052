_base_ = ['../baseline/faster-rcnn_r18_fpn_8e_bccd.py', '../_base_/methods/sea.py']
_base_.custom_hooks[-1].augmentations[0].update(at='roi_head.bbox_head.fc_cls', background=-1)
