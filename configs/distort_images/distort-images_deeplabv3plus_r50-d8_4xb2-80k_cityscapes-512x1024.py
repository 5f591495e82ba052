_base_ = [
    '../baseline/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py',
    '../_base_/methods/distort-images.py',
]
_base_.custom_hooks[-1].augmentations[0].update(prob=0.5)
