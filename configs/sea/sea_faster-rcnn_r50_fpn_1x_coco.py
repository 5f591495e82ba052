_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/methods/sea.py']
_base_.custom_hooks[-1].augmentations[0].update(at='roi_head.bbox_head.fc_cls', background=-1)
