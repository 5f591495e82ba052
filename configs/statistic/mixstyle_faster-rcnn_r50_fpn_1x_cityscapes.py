_base_ = '../baseline/faster-rcnn_r50_fpn_1x_cityscapes.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.MixStyle',
                at='backbone.layer1',
            ),
            dict(
                type='mmfeataug.MixStyle',
                at='backbone.layer2',
            ),
        ],
    )
]
