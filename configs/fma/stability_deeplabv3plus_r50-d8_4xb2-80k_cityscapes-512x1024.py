# Fine-tunes the baseline's checkpoint at a tenth of its learning rate: train that first, or set
# load_from.
_base_ = [
    '../baseline/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py',
    '../_base_/methods/stability.py',
]
_base_.custom_hooks[-1].augmentations[0].at = 'decode_head.conv_seg'
load_from = 'work_dirs/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024/iter_80000.pth'
optim_wrapper = dict(optimizer=dict(lr=0.001))
