_base_ = [
    '../baseline/finetune_deeplabv3plus_r18-d16_1xb4-400_camvid-192x256.py',
    '../_base_/methods/fma.py',
]
