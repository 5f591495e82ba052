# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What a single image's prediction is worth: a figure that attacks can be compared by, image by
image, without the evaluator of a test set.
"""

import math
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from .geometry import to_view


def image_score(prediction: Any, truth: Any, classes: int | None = None) -> float:
    """From 0 (nothing is right) to 1; not a number where an image has nothing to find.

    Segmentation: share of the pixels with a label whose class is right. Classification: whether
    the label is right. Detection: mean AP at IoU 0.5 over the classes in the image.

    Args:
        prediction: Data sample, in the coordinates of the file.
        truth: Data sample of the same image, as :func:`for_loss` makes it.
        classes: Number of classes of a segmentor; larger labels are none.
    """
    if 'pred_instances' in prediction and 'gt_instances' in truth:
        return _precision(prediction, truth)
    if 'pred_sem_seg' in prediction and 'gt_sem_seg' in truth:
        return _right_pixels(prediction, truth, classes)
    if 'pred_label' in prediction and 'gt_label' in truth:
        if prediction.pred_label.numel() != 1 or truth.gt_label.numel() != 1:
            return math.nan  # Several labels.
        return float(prediction.pred_label.item() == truth.gt_label.item())
    return math.nan


def _right_pixels(prediction: Any, truth: Any, classes: int | None) -> float:
    found, labels = prediction.pred_sem_seg.data, truth.gt_sem_seg.data
    height, width = truth.metainfo.get('img_shape', labels.shape[-2:])[:2]
    # Padding, which carries a label map's own value, is no part of a prediction.
    labels = labels[..., :height, :width].to(found.device)
    if labels.shape[-2:] != found.shape[-2:]:
        labels = F.interpolate(labels[None].float(), found.shape[-2:], mode='nearest')[0].long()
    valid = (labels >= 0) & (labels < (255 if classes is None else classes))
    right = (found == labels) & valid
    return float(right.sum() / valid.sum()) if valid.any() else math.nan


def _precision(prediction: Any, truth: Any) -> float:
    from mmdet.evaluation.functional import eval_map

    known, found = truth.gt_instances, prediction.pred_instances
    if not len(known):
        return math.nan
    labels, scores = _array(found.labels), _array(found.scores)
    boxes = np.hstack([_array(to_view(_plain(found.bboxes), truth)), scores[:, None]])
    count = int(max(_array(known.labels).max(), labels.max(initial=0))) + 1
    ground = dict(bboxes=_array(_plain(known.bboxes)), labels=_array(known.labels))
    ignored = truth.get('ignored_instances')
    if ignored is not None and len(ignored):
        ground['bboxes_ignore'] = _array(_plain(ignored.bboxes))
        ground['labels_ignore'] = _array(ignored.labels)
    by_class = [boxes[labels == label] for label in range(count)]
    return float(eval_map([by_class], [ground], iou_thr=0.5, logger='silent')[0])


def _plain(boxes: Any) -> Tensor:
    return getattr(boxes, 'tensor', boxes)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
