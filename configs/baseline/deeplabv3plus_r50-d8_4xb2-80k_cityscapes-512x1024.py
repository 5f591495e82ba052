_base_ = [
    '../_base_/models/deeplabv3plus_r50-d8.py',
    '../_base_/datasets/cityscapes_segmentation.py',
    '../_base_/schedules/seg_80k.py',
    '../_base_/seg_default_runtime.py',
]
model = dict(data_preprocessor=dict(size=(512, 1024)))
auto_scale_lr = dict(enable=False, base_batch_size=8)
