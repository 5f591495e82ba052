# The clean loss keeps its weight, since the layers before the classifier learn from it alone.
_base_ = '../baseline/deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512.py'
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
