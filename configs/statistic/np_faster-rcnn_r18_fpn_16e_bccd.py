_base_ = '../baseline/faster-rcnn_r18_fpn_16e_bccd.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.NormalizationPerturbation',
                at='backbone.layer1',
            ),
        ],
    )
]
