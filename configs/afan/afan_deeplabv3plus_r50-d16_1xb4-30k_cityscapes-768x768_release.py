# Row FINAL01 of the release.
# live_prefix: the skip into the decoder stays in the graph of a view, as in the release.
_base_ = '../baseline/deeplabv3plus_r50-d16_1xb4-30k_cityscapes-768x768.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        engine='graph',
        clean_weight=0.7,
        augmentations=[
            dict(
                type='mmfeataug.AFAN',
                at='backbone.layer2',
                gamma=0.02 / 255,
                strengths=(0.5, 1.0),
                reinject=(False, True),
                weight=0.1,
                live_prefix=True,
            ),
            dict(
                type='mmfeataug.AFAN',
                at='decode_head.sep_bottleneck',
                side='input',
                gamma=1.5 / 255,
                strengths=(1.0,),
                reinject=(True,),
                weight=0.1,
                live_prefix=True,
            ),
        ],
    )
]
