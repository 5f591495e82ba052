_base_ = ['../baseline/faster-rcnn_r18_fpn_8e_bccd.py', '../_base_/methods/advprop.py']
_base_.custom_hooks[-1].augmentations[0].against = [['cls'], ['bbox']]
model = dict(
    type='mmfeataug.AugmentedModel',
    of=_base_.model.type,
    augmentations=_base_.custom_hooks[-1].pop('augmentations'),
)
