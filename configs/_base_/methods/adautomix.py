# Mixtures of two images. Each network has its own: channels at the place that the generator sees,
# what the teacher compares, and a momentum that fits the length of training.
# To be declared in the model: see configs/README.md.
custom_hooks = [
    dict(
        type='mmengine.EMAHook',
        ema_type='mmfeataug.CosineEMA',
        momentum=0.1,
        end_momentum=0.02,
        update_buffers=True,
    ),
    dict(
        type='mmfeataug.FeatureAugHook',
        clean_weight=0.5,
        augmentations=[
            dict(
                type='mmfeataug.AdAutoMix',
                at='backbone.layer3',
                channels=256,
                compare='head.fc',
                samples=2,
                beta=0.3,
                lam_concat=True,
                weight=0.5,
            ),
        ],
    ),
]
# The generator gets no gradient where nothing is mixed.
find_unused_parameters = True
