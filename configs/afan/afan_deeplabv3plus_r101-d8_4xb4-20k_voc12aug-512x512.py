# Perturbation and weights of the release's first VOC2012 row.
_base_ = '../baseline/deeplabv3plus_r101-d8_4xb4-20k_voc12aug-512x512.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.7,
        augmentations=[
            dict(
                type='mmfeataug.AFAN',
                at='backbone.layer3',
                gamma=0.01 / 255,
                strengths=(0.5, 1.0),
                reinject=(True, True),
                weight=0.1,
                unit='absolute',
            ),
            dict(
                type='mmfeataug.AFAN',
                at='decode_head.bottleneck',
                gamma=0.4 / 255,
                strengths=(1.0,),
                reinject=(False,),
                weight=0.1,
                unit='absolute',
            ),
        ],
    )
]
