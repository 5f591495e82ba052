_base_ = '../baseline/faster-rcnn_r18_fpn_8e_bccd.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.DSU',
                at='backbone.layer1',
            ),
            dict(
                type='mmfeataug.DSU',
                at='backbone.layer2',
            ),
            dict(
                type='mmfeataug.DSU',
                at='backbone.layer3',
            ),
            dict(
                type='mmfeataug.DSU',
                at='backbone.layer4',
            ),
        ],
    )
]
