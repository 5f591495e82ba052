# The clean loss keeps its weight, since the layers before the classifier learn from it alone.
_base_ = 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(
                type='mmfeataug.SeA',
                at='roi_head.bbox_head.fc_cls',
                background=-1,
                weight=0.5,
            ),
        ],
        clean_weight=1.0,
    )
]
