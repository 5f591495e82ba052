# Two views in the encoder and one in the RoI head. Strengths and weights are ours: the release
# tuned its own on pre-trained features.
_base_ = './faster-rcnn_r18_fpn_demo-coco.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.5,
        augmentations=[
            dict(
                type='mmfeataug.AFAN',
                at='backbone.layer2',
                gamma=0.1,
                strengths=(0.5, 1.0),
                reinject=(False, True),
                weight=0.2,
            ),
            dict(
                type='mmfeataug.AFAN',
                at='roi_head.bbox_head.shared_fcs.1',
                gamma=0.1,
                weight=0.1,
            ),
        ],
    )
]
