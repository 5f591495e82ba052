_base_ = 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'
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
