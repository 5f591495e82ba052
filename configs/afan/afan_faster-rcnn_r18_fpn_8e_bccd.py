# The weights are ours: half of the loss clean, the rest shared equally by the five views.
_base_ = '../baseline/faster-rcnn_r18_fpn_8e_bccd.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.5,
        augmentations=[
            dict(
                type='mmfeataug.AFAN',
                at='backbone.layer2',
                gamma=1 / 255,
                strengths=(0.25, 0.5, 0.75, 1.0),
                reinject=(False, False, True, True),
                weight=0.1,
                unit='absolute',
            ),
            dict(
                type='mmfeataug.AFAN',
                at='roi_head.bbox_head.shared_fcs.1',
                gamma=0.1 / 255,
                strengths=(1.0,),
                reinject=(False,),
                weight=0.1,
                unit='absolute',
            ),
        ],
    )
]
