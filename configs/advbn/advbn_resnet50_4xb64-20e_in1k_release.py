# The release's settings, which are the defaults of AdvBN: six steps of 0.2 within 1.1.
_base_ = '../baseline/resnet50_4xb64-20e_in1k.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    augmentations=[
        dict(
            type='mmfeataug.AdvBN',
            at='backbone.layer1',
            bn='separate',
        ),
    ],
)
# Second batch norms get no gradient where a view is left out.
find_unused_parameters = True
custom_hooks = [dict(type='mmfeataug.FeatureAugHook')]
