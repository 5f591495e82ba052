_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
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
