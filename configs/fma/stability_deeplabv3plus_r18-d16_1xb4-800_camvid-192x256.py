_base_ = [
    '../baseline/finetune_deeplabv3plus_r18-d16_1xb4-400_camvid-192x256.py',
    '../_base_/methods/stability.py',
]
_base_.custom_hooks[-1].augmentations[0].at = 'decode_head.conv_seg'
