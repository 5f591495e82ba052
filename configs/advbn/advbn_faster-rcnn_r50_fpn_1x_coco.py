_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/methods/advbn.py']
model = dict(
    type='mmfeataug.AugmentedModel',
    of=_base_.model.type,
    augmentations=_base_.custom_hooks[-1].pop('augmentations'),
)
