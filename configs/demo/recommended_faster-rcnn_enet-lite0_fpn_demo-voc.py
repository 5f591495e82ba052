_base_ = ['./faster-rcnn_enet-lite0_fpn_demo-voc.py', '../_base_/methods/recommended.py']
_base_.custom_hooks[-1].augmentations[0].update(at='backbone.timm_model.blocks.2')
