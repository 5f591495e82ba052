# An attack of one grey level: the stronger one of those against classification and localisation.
_base_ = 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'
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
