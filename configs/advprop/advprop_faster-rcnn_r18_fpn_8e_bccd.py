# An attack of one grey level: the stronger one of those against classification and localisation.
_base_ = '../baseline/faster-rcnn_r18_fpn_8e_bccd.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='FasterRCNN',
    augmentations=[
        dict(
            type='mmfeataug.AFAN',
            at='inputs',
            unit='pixel',
            gamma=1.0,
            against=[['cls'], ['bbox']],
            weight=0.5,
            bn='separate',
        ),
    ],
)
# Second batch norms get no gradient where a view is left out.
find_unused_parameters = True
custom_hooks = [dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5)]
