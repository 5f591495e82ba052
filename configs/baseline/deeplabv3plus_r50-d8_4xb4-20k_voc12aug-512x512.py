_base_ = [
    '../_base_/models/deeplabv3plus_r50-d8.py',
    '../_base_/datasets/pascal_voc12_aug.py',
    '../_base_/schedules/seg_20k.py',
    '../_base_/seg_default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=21),
    auxiliary_head=dict(num_classes=21),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
