# First VOC2012 row of the release.
_base_ = [
    '../baseline/deeplabv3plus_r50-d16_1xb4-30k_voc12-513x513.py',
    '../_base_/releases/afan_deeplabv3plus-voc12.py',
]
