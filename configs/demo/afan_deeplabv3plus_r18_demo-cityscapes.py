# One view in the encoder and one in the decoder. Strengths and weights are ours: the release tuned
# its own on pre-trained features.
_base_ = './deeplabv3plus_r18_demo-cityscapes.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.7,
        augmentations=[
            dict(
                type='mmfeataug.AFAN',
                at='backbone.layer3',
                gamma=0.03,
                weight=0.2,
                unit='absolute',
            ),
            dict(
                type='mmfeataug.AFAN',
                at='decode_head.sep_bottleneck',
                side='input',
                gamma=0.03,
                reinject=True,
                weight=0.1,
                unit='absolute',
            ),
        ],
    )
]
