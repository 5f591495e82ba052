_base_ = '../baseline/faster-rcnn_r18_fpn_8e_bccd.py'
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
