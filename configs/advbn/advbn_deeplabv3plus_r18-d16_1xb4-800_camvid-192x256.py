# Clean and adversarial loss are summed, as in the paper; batch norms behind the tap have a second
# set.
_base_ = '../baseline/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='EncoderDecoder',
    augmentations=[
        dict(
            type='mmfeataug.AdvBN',
            at='backbone.layer1',
            bn='separate',
            weight=1.0,
        ),
    ],
)
# Second batch norms get no gradient where a view is left out.
find_unused_parameters = True
custom_hooks = [dict(type='mmfeataug.FeatureAugHook', clean_weight=1.0)]
