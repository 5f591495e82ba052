# Row FINAL01 of the release.
# learn='skips': views train what feeds the skip into the decoder, as in the release.
_base_ = [
    '../baseline/deeplabv3plus_r50-d16_1xb4-30k_cityscapes-768x768.py',
    '../_base_/releases/afan.py',
]
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.7,
        augmentations=[
            dict(
                _base_.release_view,
                at='backbone.layer2',
                gamma=0.02 / 255,
                strengths=(0.5, 1.0),
                reinject=(False, True),
                weight=0.1,
                learn='skips',
            ),
            dict(
                _base_.release_view,
                at='decode_head.sep_bottleneck',
                side='input',
                gamma=1.5 / 255,
                strengths=(1.0,),
                reinject=(True,),
                weight=0.1,
                learn='skips',
            ),
        ],
    )
]
