# Faster R-CNN C4 as the A-FAN release trains it, as far as mmdet's options reach (README.md lists
# the rest). Torchvision weights and normalisation instead of the Caffe ones: perturbation sizes are
# in feature units, and the two backbones have features of different scale.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50-caffe-c4.py'
pretrained = dict(type='Pretrained', checkpoint='torchvision://resnet50')
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(style='pytorch', init_cfg=pretrained),
    rpn_head=dict(
        feat_channels=512,
        anchor_generator=dict(scales=[8, 16, 32]),
        loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
    ),
    roi_head=dict(
        shared_head=dict(style='pytorch', init_cfg=pretrained),
        # as in the release: 7x7 into layer4 (stride 2), 4x4 out of it; no shift by half a pixel
        bbox_roi_extractor=dict(roi_layer=dict(output_size=7, aligned=False)),
        bbox_head=dict(
            roi_feat_size=4,
            loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(allowed_border=0),
        rcnn=dict(sampler=dict(num=128, add_gt_as_proposals=False)),
    ),
    test_cfg=dict(
        rpn=dict(max_per_img=300),
        # what the release's evaluator keeps
        rcnn=dict(score_thr=0.05, nms=dict(iou_threshold=0.3), max_per_img=300),
    ),
)
