# A-FAN's release on DeepLabV3+, first row of VOC 2012: layer 3, both views re-injected, decoder tap
# behind the ASPP.
# learn='skips': views train what feeds the skip into the decoder, as in the release.
_base_ = './afan.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.7,
        augmentations=[
            dict(
                _base_.release_view,
                at='backbone.layer3',
                gamma=0.01 / 255,
                strengths=(0.5, 1.0),
                reinject=(True, True),
                weight=0.1,
                learn='skips',
            ),
            dict(
                _base_.release_view,
                at='decode_head.bottleneck',
                gamma=0.4 / 255,
                strengths=(1.0,),
                reinject=(False,),
                weight=0.1,
                learn='skips',
            ),
        ],
    )
]
