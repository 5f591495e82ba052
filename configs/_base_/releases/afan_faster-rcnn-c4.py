# A-FAN's release on Faster R-CNN C4, VOC 2007. The weights add up to 1.267, as the release's do.
# learn='skips': the RPN's losses in the pass of the RoI view have a gradient, as in the release.
_base_ = './afan.py'
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.7 / 3,
        augmentations=[
            dict(
                _base_.release_view,
                at='backbone.layer2',
                gamma=1 / 255,
                strengths=(0.25, 0.5, 0.75, 1.0),
                reinject=(False, False, True, True),
                weight=0.7 / 3,
                learn='tail',
            ),
            dict(
                _base_.release_view,
                at='roi_head.bbox_head.avg_pool',
                gamma=0.1 / 255,
                strengths=(1.0,),
                reinject=(False,),
                weight=0.3 / 3,
                learn='skips',
            ),
        ],
    )
]
