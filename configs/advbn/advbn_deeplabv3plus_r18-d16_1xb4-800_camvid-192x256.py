_base_ = [
    '../baseline/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py',
    '../_base_/methods/advbn.py',
]
model = dict(
    type='mmfeataug.AugmentedModel',
    of=_base_.model.type,
    augmentations=_base_.custom_hooks[-1].pop('augmentations'),
)
