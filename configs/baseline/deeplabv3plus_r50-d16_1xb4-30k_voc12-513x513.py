# The A-FAN release's VOC2012 baseline.
_base_ = [
    '../_base_/models/deeplabv3plus_r50-d16_release.py',
    '../_base_/datasets/pascal_voc12.py',
    '../_base_/schedules/seg_30k_release.py',
    '../_base_/seg_default_runtime.py',
]
crop_size = (513, 513)
model = dict(data_preprocessor=dict(size=crop_size), decode_head=dict(num_classes=21))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    # VOC images have a long side of 500: scale 0.5 to 2 of their own size, as the release draws it
    dict(type='RandomResize', scale=(500, 500), ratio_range=(0.5, 2.0), keep_ratio=True),
    # 0 is black, and background: the border is in the loss, as in the release
    dict(type='Pad', size=crop_size, pad_val=dict(img=0, seg=0)),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
auto_scale_lr = dict(enable=False, base_batch_size=4)
