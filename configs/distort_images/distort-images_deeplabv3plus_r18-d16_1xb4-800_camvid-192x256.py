_base_ = [
    '../baseline/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py',
    '../_base_/methods/distort-images.py',
]
