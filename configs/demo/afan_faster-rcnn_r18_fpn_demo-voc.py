# One view in the encoder and one in the RoI head. Strengths and weights are ours: the release
# tuned its own on pre-trained features.
_base_ = './faster-rcnn_r18_fpn_demo-voc.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.7,
        augmentations=[
            dict(
                type='mmfeataug.AFAN',
                at='backbone.layer2',
                gamma=0.03,
                weight=0.2,
                unit='absolute',
            ),
            dict(
                type='mmfeataug.AFAN',
                at='roi_head.bbox_head.shared_fcs.1',
                gamma=0.03,
                reinject=True,
                weight=0.1,
                unit='absolute',
            ),
        ],
    )
]
