_base_ = '../baseline/faster-rcnn_r18_fpn_8e_bccd.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.PAdaIN',
                at='backbone.layer1',
                prob=0.01,
            ),
            dict(
                type='mmfeataug.PAdaIN',
                at='backbone.layer2',
                prob=0.01,
            ),
            dict(
                type='mmfeataug.PAdaIN',
                at='backbone.layer3',
                prob=0.01,
            ),
            dict(
                type='mmfeataug.PAdaIN',
                at='backbone.layer4',
                prob=0.01,
            ),
        ],
    )
]
