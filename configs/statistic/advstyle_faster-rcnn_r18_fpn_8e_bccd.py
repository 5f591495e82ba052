_base_ = '../baseline/faster-rcnn_r18_fpn_8e_bccd.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.5,
        augmentations=[
            dict(
                type='mmfeataug.AdvStyle',
                at='inputs',
                weight=0.5,
            ),
        ],
    )
]
