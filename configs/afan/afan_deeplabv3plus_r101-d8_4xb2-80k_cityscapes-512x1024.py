# Perturbation and weights of the release's Cityscapes row FINAL01.
_base_ = '../baseline/deeplabv3plus_r101-d8_4xb2-80k_cityscapes-512x1024.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.7,
        augmentations=[
            dict(
                type='mmfeataug.AFAN',
                at='backbone.layer2',
                gamma=0.02 / 255,
                strengths=(0.5, 1.0),
                reinject=(False, True),
                weight=0.1,
                unit='absolute',
            ),
            dict(
                type='mmfeataug.AFAN',
                at='decode_head.sep_bottleneck',
                side='input',
                gamma=1.5 / 255,
                strengths=(1.0,),
                reinject=(True,),
                weight=0.1,
                unit='absolute',
            ),
        ],
    )
]
