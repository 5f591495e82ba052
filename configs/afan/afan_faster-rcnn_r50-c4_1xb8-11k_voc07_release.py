# Row S1 of the release.
_base_ = [
    '../baseline/faster-rcnn_r50-c4_1xb8-11k_voc07.py',
    '../_base_/releases/afan_faster-rcnn-c4.py',
]
