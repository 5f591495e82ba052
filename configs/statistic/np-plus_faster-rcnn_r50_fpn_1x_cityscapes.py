_base_ = '../baseline/faster-rcnn_r50_fpn_1x_cityscapes.py'
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
