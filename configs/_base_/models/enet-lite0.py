# EfficientNet-Lite0 with the ImageNet weights that tools/model_converters/efficientnet_lite0.py
# writes: a backbone for `model = dict(backbone=dict(_delete_=True, **_base_.enet_lite0))`, with 24,
# 40, 112 and 320 channels at strides 4, 8, 16 and 32; images of mean 127 and deviation 128, RGB.
enet_lite0 = dict(
    type='mmpretrain.TIMMBackbone',
    model_name='tf_efficientnet_lite0',
    features_only=True,
    pretrained=False,
    out_indices=(1, 2, 3, 4),
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/enet-lite0.pth'),
)
