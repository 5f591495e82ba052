# The drawn shapes that mmfeataug.datasets.make_demo_data('data/demo') cuts out of its scenes.
_base_ = '../baseline/resnet18_1xb64_digits.py'
data_root = 'data/demo/imagenet'
data_preprocessor = dict(num_classes=3, mean=[110.0] * 3, std=[50.0] * 3)
model = dict(head=dict(num_classes=3))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=64, padding=4, padding_mode='edge'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=16, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
