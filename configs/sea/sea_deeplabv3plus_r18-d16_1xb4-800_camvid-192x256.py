# The clean loss keeps its weight, since the layers before the classifier learn from it alone.
_base_ = '../baseline/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.SeA',
                at='decode_head.conv_seg',
                weight=0.5,
            ),
        ],
        clean_weight=1.0,
    )
]
