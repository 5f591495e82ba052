# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The models of the zoo: stock configs, how each is made smaller, and where it is tapped."""

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import pytest

PLACES = ('early', 'middle', 'neck', 'head')


@dataclass(frozen=True)
class Entry:
    """A row of the zoo.

    Attributes:
        package: ``'mmdet'`` or ``'mmseg'``.
        config: Path below the package's ``.mim/configs``.
        head: Path of the tap in the head.
        early, middle, neck: Paths of the others.
        divisor: Of all widths that the config gives; 1 where the code fixes the backbone's.
        overrides: Dotted path in the shrunk model to value.
        size: Height and width of the images.
        needs: A package without which this row is skipped.
        predicts: False where the stock model's own ``predict`` fails (SSDHead has no ``loss_cls``,
            which mmdet 3.3 asks for); its forward pass is compared instead.
    """

    package: str
    config: str
    head: str
    early: str = 'backbone.layer1'
    middle: str = 'backbone.layer3'
    neck: str = 'neck'
    divisor: int = 8
    overrides: dict[str, Any] = field(default_factory=dict)
    size: int = 64
    needs: str | None = None
    predicts: bool = True

    @property
    def name(self) -> str:
        """File name of the config."""
        return PurePath(self.config).stem

    @property
    def taps(self) -> dict[str, str]:
        """Path at each of :data:`PLACES`."""
        return {place: getattr(self, place) for place in PLACES}


def _det(config: str, head: str, **kwargs: Any) -> Entry:
    return Entry('mmdet', config, head, **kwargs)


def _seg(config: str, head: str, **kwargs: Any) -> Entry:
    # Most segmentors have no neck: what the head receives stands in for it.
    return Entry('mmseg', config, head, **{'neck': 'backbone', **kwargs})


FCS = 'roi_head.bbox_head.shared_fcs.1'
CLS = 'bbox_head.cls_convs.1'
STAGES = dict(early='backbone.stages.0', middle='backbone.stages.2')
HRNET = dict(early='backbone.layer1', middle='backbone.stage3')
# The width that these heads take if the config gives none.
QUERIES = {'bbox_head.embed_dims': 32}
CONVNEXT = {'backbone.arch': dict(depths=[1, 1, 2, 1], channels=[12, 24, 48, 96])}

DETECTORS = [
    # C4: the shared head's width is fixed, so the backbone keeps its own; fewer and smaller RoIs.
    _det(
        'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
        'roi_head.shared_head',
        middle='backbone.layer2',
        neck='backbone',
        divisor=1,
        overrides={
            'rpn_head.feat_channels': 64,
            'roi_head.bbox_roi_extractor.roi_layer.output_size': 4,
            'roi_head.bbox_head.roi_feat_size': 2,
            'train_cfg.rcnn.sampler.num': 8,
        },
    ),
    _det('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', FCS),
    _det('cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', 'roi_head.bbox_head.1.shared_fcs.0'),
    _det('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'roi_head.mask_head.convs.1'),
    _det(
        'mask_rcnn/mask-rcnn_x101-32x4d_fpn_1x_coco.py',
        'roi_head.bbox_head.shared_fcs.0',
        overrides={'backbone.groups': 4, 'backbone.base_width': 2},
    ),
    _det(
        'res2net/faster-rcnn_res2net-101_fpn_2x_coco.py',
        FCS,
        middle='backbone.layer3.0',
        overrides={'backbone.base_width': 4},
    ),
    _det(
        'regnet/mask-rcnn_regnetx-400MF_fpn_ms-poly-3x_coco.py',
        'roi_head.mask_head.upsample',
        overrides={'neck.in_channels': [32, 64, 160, 384]},
    ),
    _det('hrnet/faster-rcnn_hrnetv2p-w32-1x_coco.py', FCS, **HRNET),
    _det('swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', FCS, **STAGES),
    _det('dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py', FCS),
    _det(
        'libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py',
        FCS,
        middle='backbone.layer2',
        neck='neck.0',
    ),
    _det('sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py', 'roi_head.bbox_head.1.attention_norm'),
    _det('htc/htc-without-semantic_r50_fpn_1x_coco.py', 'roi_head.bbox_head.1.shared_fcs.0'),
    _det('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', FCS),
    _det('retinanet/retinanet_r50_fpn_1x_coco.py', CLS),
    _det(
        'pvt/retinanet_pvt-t_fpn_1x_coco.py',
        CLS,
        early='backbone.layers.0.1.0',
        middle='backbone.layers.2.0',
        overrides={'neck.in_channels': [64, 128, 320, 512]},
    ),
    _det(
        'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py',
        'bbox_head.retina_cls',
        early='backbone.layers.1',
        middle='backbone.layers.4.0',
        overrides={'neck.in_channels': [48, 136, 384]},
    ),
    _det('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', CLS),
    _det('atss/atss_r50_fpn_1x_coco.py', 'bbox_head.reg_convs.1'),
    _det('gfl/gfl_r50_fpn_1x_coco.py', 'bbox_head.gfl_reg'),
    _det('vfnet/vfnet_r50_fpn_1x_coco.py', 'bbox_head.vfnet_reg_conv'),
    _det('tood/tood_r50_fpn_1x_coco.py', 'bbox_head.inter_convs.1'),
    _det('foveabox/fovea_r50_fpn_4xb4-1x_coco.py', CLS),
    _det('reppoints/reppoints-moment_r50_fpn_1x_coco.py', 'bbox_head.reppoints_pts_init_out'),
    _det('yolof/yolof_r50-c5_8xb8-1x_coco.py', 'bbox_head.bbox_subnet'),
    _det(
        'yolox/yolox_s_8xb8-300e_coco.py',
        'bbox_head.multi_level_cls_convs.0',
        early='backbone.stage1',
        middle='backbone.stage3',
    ),
    _det(
        'rtmdet/rtmdet_s_8xb32-300e_coco.py',
        'bbox_head.cls_convs.0.1',
        early='backbone.stage1',
        middle='backbone.stage3',
    ),
    _det(
        'rtmdet/rtmdet-ins_s_8xb32-300e_coco.py',
        'bbox_head.cls_convs.0.1',
        early='backbone.stage1',
        middle='backbone.stage3',
    ),
    _det(
        'ssd/ssd300_coco.py',
        'bbox_head.cls_convs.0',
        early='backbone.features.4',
        middle='backbone.features.16',
        divisor=1,
        overrides={'neck.level_paddings': (1, 1, 1, 1)},
        size=32,
        predicts=False,
    ),
    _det(
        'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
        'bbox_head.reg_convs.1',
        middle='backbone.layer4',
        divisor=1,
        predicts=False,
    ),
    _det(
        'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
        'bbox_head.convs_bridge.1',
        middle='backbone.layer4',
        divisor=1,
    ),
    _det('centernet/centernet_r18_8xb16-crop512-140e_coco.py', 'bbox_head.wh_head.0'),
    _det('detr/detr_r50_8xb2-150e_coco.py', 'decoder'),
    # The code fixes the width of its reference points' encoding.
    _det(
        'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
        'decoder',
        divisor=1,
        overrides={'backbone.base_channels': 8, 'neck.in_channels': [256]},
    ),
    _det('dab_detr/dab-detr_r50_8xb2-50e_coco.py', 'decoder.layers.0'),
    _det(
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
        'decoder.layers.0',
        overrides=QUERIES,
    ),
    _det('dino/dino-4scale_r50_8xb2-12e_coco.py', 'encoder', overrides=QUERIES),
    _det('ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py', 'encoder', overrides=QUERIES),
    _det('solov2/solov2-light_r18_fpn_ms-3x_coco.py', 'mask_head.mask_feature_head'),
    _det(
        'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
        CLS,
        overrides={
            'mask_head.num_layers': 3,
            'mask_head.feat_channels': 8,
            'mask_head.mask_feature_head.out_channels': 8,
        },
    ),
    _det(
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
        'panoptic_head.transformer_decoder.layers.0',
        neck='panoptic_head.pixel_decoder',
    ),
    _det(
        'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
        FCS,
        overrides=CONVNEXT,
        needs='mmpretrain',
        **STAGES,
    ),
]

SEGMENTORS = [
    _seg('fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'decode_head.convs'),
    _seg('pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'decode_head.psp_modules'),
    _seg('deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'decode_head.aspp_modules'),
    _seg(
        'deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        'decode_head.bottleneck',
    ),
    _seg(
        'mobilenet_v2/mobilenet-v2-d8_deeplabv3plus_4xb2-80k_cityscapes-512x1024.py',
        'decode_head.sep_bottleneck',
        middle='backbone.layer4',
        divisor=1,
    ),
    _seg(
        'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        'decode_head.fpn_bottleneck',
        **STAGES,
    ),
    _seg(
        'segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py',
        'decode_head.fusion_conv',
        early='backbone.layers.0.1.0',
        middle='backbone.layers.2.0',
    ),
    _seg('ocrnet/ocrnet_hr48_4xb2-40k_cityscapes-512x1024.py', 'decode_head.0.convs', **HRNET),
    _seg('hrnet/fcn_hr48_4xb2-40k_cityscapes-512x1024.py', 'decode_head.convs', **HRNET),
    _seg(
        'bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py',
        'decode_head.convs',
        early='backbone.context_path.backbone.layer1',
        middle='backbone.context_path.arm32',
        divisor=1,
    ),
    _seg(
        'bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py',
        'decode_head.convs',
        early='backbone.detail.detail_branch.0',
        middle='backbone.semantic.stage3',
    ),
    _seg(
        'fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py',
        'decode_head.convs',
        early='backbone.learning_to_downsample',
        middle='backbone.global_feature_extractor.bottleneck2',
        divisor=1,
    ),
    _seg(
        'stdc/stdc1_4xb12-80k_cityscapes-512x1024.py',
        'decode_head.convs',
        early='backbone.backbone.stages.1',
        middle='backbone.backbone',
    ),
    _seg(
        'segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py',
        'decode_head.hamburger',
        early='backbone.block1.0',
        middle='backbone.block3.0.attn',
    ),
    _seg(
        'pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py',
        'decode_head.i_head',
        early='backbone.stem',
        middle='backbone.i_branch_layers.1',
    ),
    _seg(
        'ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py',
        'decode_head.head',
        early='backbone.stem',
        middle='backbone.context_branch_layers.1',
    ),
    _seg(
        'icnet/icnet_r50-d8_4xb2-80k_cityscapes-832x832.py',
        'decode_head.convs',
        early='backbone.conv_sub1',
        middle='backbone.backbone.layer3',
        neck='neck',
    ),
    _seg('danet/danet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'decode_head.pam_out_conv'),
    _seg('ccnet/ccnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'decode_head.cca'),
    _seg('encnet/encnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'decode_head.enc_module'),
    _seg(
        'sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024.py', 'decode_head.scale_heads.1', neck='neck'
    ),
    _seg(
        'segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py',
        'decode_head.layers.0',
        early='backbone.patch_embed',
        middle='backbone.layers.0',
    ),
    _seg(
        'unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py',
        'decode_head.convs',
        early='backbone.encoder.1',
        middle='backbone.encoder.4',
    ),
    _seg(
        'cgnet/cgnet_fcn_4xb8-60k_cityscapes-512x1024.py',
        'decode_head.conv_seg',
        early='backbone.stem.2',
        middle='backbone.norm_prelu_1',
    ),
    _seg(
        'twins/twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512.py',
        'decode_head.scale_heads.0',
        early='backbone.layers.0.0',
        middle='backbone.layers.2.0',
        neck='neck',
    ),
    _seg(
        'point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py',
        'decode_head.1.fcs.1',
        neck='neck',
    ),
    _seg(
        'mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py',
        'decode_head.transformer_decoder.layers.0',
        neck='decode_head.pixel_decoder',
    ),
    _seg(
        'knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py',
        'decode_head.kernel_update_head.0',
    ),
    _seg('resnest/resnest_s101-d8_fcn_4xb2-80k_cityscapes-512x1024.py', 'decode_head.conv_cat'),
    _seg('isanet/isanet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'decode_head.global_relation'),
    _seg(
        'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
        'decode_head.fpn_bottleneck',
        overrides=CONVNEXT,
        needs='mmpretrain',
        **STAGES,
    ),
]
ENTRIES = DETECTORS + SEGMENTORS
QUICK = 'fast_scnn_8xb4-160k_cityscapes-512x1024'
"""One of them is part of the usual tests: these would else break unseen."""
PARAMS = [
    pytest.param(entry, id=entry.name, marks=[] if entry.name == QUICK else [pytest.mark.zoo])
    for entry in ENTRIES
]
