# The release's settings: six steps of 0.2 within 1.1, the plain sum of both losses.
_base_ = '../baseline/resnet50_4xb64-20e_in1k.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[
        dict(
            type='mmfeataug.AdvBN',
            at='backbone.layer1',
            bn='separate',
            weight=1.0,
            steps=6,
            step_size=0.2,
            eps=1.1,
            side='output',
            learn='tail',
        ),
    ],
)
# Second batch norms get no gradient where a view is left out.
find_unused_parameters = True
custom_hooks = [dict(type='mmfeataug.FeatureAugHook', clean_weight=1.0)]
