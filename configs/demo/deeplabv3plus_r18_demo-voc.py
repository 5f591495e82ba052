# About a minute of training on 2 idle CPU cores, on the scenes that
# mmfeataug.datasets.make_demo_data('data/demo') draws.
_base_ = [
    '../_base_/models/deeplabv3plus_r18-d16_tiny.py',
    '../_base_/datasets/pascal_voc12.py',
    '../_base_/schedules/demo_segmentation.py',
    '../_base_/seg_default_runtime.py',
]
data_root = 'data/demo/VOCdevkit/VOC2012'
crop_size = (160, 224)
model = dict(data_preprocessor=dict(size=crop_size), decode_head=dict(num_classes=21))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(224, 160), ratio_range=(1.0, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(224, 160), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
