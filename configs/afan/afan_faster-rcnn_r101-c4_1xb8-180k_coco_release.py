# Row S1 of the release.
_base_ = [
    '../baseline/faster-rcnn_r101-c4_1xb8-180k_coco.py',
    '../_base_/releases/afan_faster-rcnn-c4.py',
]
_base_.custom_hooks[-1].augmentations[0].gamma = 0.1 / 255
