# The clean loss keeps its weight, since the layers before the classifier learn from it alone.
_base_ = '../baseline/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py'
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
