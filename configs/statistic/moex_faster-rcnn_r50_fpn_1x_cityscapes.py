_base_ = '../baseline/faster-rcnn_r50_fpn_1x_cityscapes.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.MoEx',
                at='backbone.layer1',
            ),
        ],
    )
]
