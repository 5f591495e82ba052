# An attack of one grey level.
_base_ = '../baseline/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='EncoderDecoder',
    augmentations=[
        dict(
            type='mmfeataug.AFAN',
            at='inputs',
            unit='pixel',
            gamma=1.0,
            weight=0.5,
            bn='separate',
        ),
    ],
)
# Second batch norms get no gradient where a view is left out.
find_unused_parameters = True
custom_hooks = [dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5)]
