_base_ = [
    '../baseline/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py',
    '../_base_/methods/distort-images.py',
]
_base_.custom_hooks[-1].augmentations[0].update(prob=0.5)
