_base_ = '../baseline/faster-rcnn_r18_fpn_8e_bccd.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.NormalizationPerturbation',
                at='backbone.layer1',
                plus=True,
            ),
        ],
    )
]
