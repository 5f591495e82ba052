# The A-FAN release's Cityscapes baseline.
_base_ = [
    '../_base_/models/deeplabv3plus_r50-d16_release.py',
    '../_base_/datasets/cityscapes_segmentation.py',
    '../_base_/schedules/seg_30k_release.py',
    '../_base_/seg_default_runtime.py',
]
crop_size = (768, 768)
model = dict(data_preprocessor=dict(size=crop_size))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=crop_size),
    # the release jitters brightness, contrast and saturation by half; no hue (0 is not accepted
    # here)
    dict(type='PhotoMetricDistortion', hue_delta=1),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=4, num_workers=4, dataset=dict(pipeline=train_pipeline))
# ten times the usual rate; it is what the release's scripts say
optim_wrapper = dict(optimizer=dict(lr=0.1))
auto_scale_lr = dict(enable=False, base_batch_size=4)
