# Fine-tunes the baseline's checkpoint at a tenth of its learning rate: train that first, or set
# load_from.
_base_ = '../baseline/faster-rcnn_r50_fpn_1x_cityscapes.py'
load_from = 'work_dirs/faster-rcnn_r50_fpn_1x_cityscapes/epoch_8.pth'
optim_wrapper = dict(optimizer=dict(lr=0.001))
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.FMA',
                at='backbone',
                weight=1.0,
            ),
        ],
    )
]
