# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Ground truth of test pipelines, in the coordinates that training losses expect.

Test pipelines of detection and segmentation load annotations behind the resizing of the image, so
that metrics see the original coordinates.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def for_loss(samples: Sequence[Any], inputs: Tensor, model: Any, resized: bool) -> list[Any]:
    """Data samples to call ``loss`` with; the given ones stay as they are.

    Args:
        samples: As a data preprocessor leaves them.
        inputs: Images with their padding, ``(N, 3, H, W)``.
        model: Says how label maps are padded.
        resized: Whether boxes and masks are in coordinates of the resized image already.

    Raises:
        ValueError: If a sample has no ground truth.
    """
    height, width = inputs.shape[-2:]
    size = (height, width)
    pad = getattr(model.data_preprocessor, 'seg_pad_val', 255)
    found = []
    for sample in samples:
        _require(sample)
        # A container of its own.
        sample = sample.detach()
        for name in ('gt_instances', 'ignored_instances'):
            if name in sample and not resized:
                setattr(sample, name, _rescaled(getattr(sample, name), sample, size))
        if 'gt_sem_seg' in sample:
            sample.gt_sem_seg = _padded(sample.gt_sem_seg, sample, size, pad)
        found.append(sample)
    return found


def loaded_resized(dataset: Any) -> bool:
    """Whether a data set's pipeline loads annotations before it resizes the image."""
    while hasattr(dataset, 'dataset') or getattr(dataset, 'datasets', None):
        dataset = dataset.dataset if hasattr(dataset, 'dataset') else dataset.datasets[0]
    steps = [type(t).__name__ for t in getattr(dataset.pipeline, 'transforms', ())]
    loads = [i for i, name in enumerate(steps) if 'Annotations' in name and 'Load' in name]
    resizes = [i for i, name in enumerate(steps) if 'Resize' in name]
    return bool(loads and resizes) and loads[0] < resizes[-1]


def _require(sample: Any) -> None:
    instances = getattr(sample, 'gt_instances', None)
    labelled = instances is not None and 'bboxes' in instances
    if labelled or any(name in sample for name in ('gt_sem_seg', 'gt_label', 'gt_score')):
        return
    raise ValueError(
        'the test pipeline loads no ground truth, and the attack climbs the training loss: put '
        "dict(type='LoadAnnotations', ...) behind the Resize step of "
        'test_dataloader.dataset.pipeline, and use a data set that has annotations (the sample '
        f'holds {sorted(sample.keys()) or "nothing"})'
    )


def _rescaled(instances: Any, sample: Any, size: tuple[int, int]) -> Any:
    """Boxes and masks in coordinates of the resized and padded image."""
    instances = instances.clone()
    height, width = sample.img_shape[:2]
    across, down = _factors(sample)
    if 'bboxes' in instances:
        boxes = instances.bboxes
        if isinstance(boxes, Tensor):
            instances.bboxes = boxes * boxes.new_tensor([across, down, across, down])
        else:
            boxes.rescale_((across, down))
    if 'masks' in instances:
        instances.masks = instances.masks.resize((height, width)).pad(size)
    return instances


def _factors(sample: Any) -> tuple[float, float]:
    factor = sample.metainfo.get('scale_factor')
    if factor is not None:
        return float(factor[0]), float(factor[1])
    (height, width), (old_height, old_width) = sample.img_shape[:2], sample.ori_shape[:2]
    return width / old_width, height / old_height


def _padded(label_map: Any, sample: Any, size: tuple[int, int], pad: int) -> Any:
    """A label map that covers what the network sees. Heads bring their scores to its size, so
    without padding it can stay as it is.
    """
    height, width = sample.metainfo.get('img_shape', size)[:2]
    if (height, width) == size:
        return label_map
    name = 'data' if 'data' in label_map else 'sem_seg'
    labels = getattr(label_map, name)
    resized = F.interpolate(labels[None].float(), (height, width), mode='nearest')[0]
    padding = (0, size[1] - width, 0, size[0] - height)
    label_map = type(label_map)()
    label_map.set_field(F.pad(resized, padding, value=pad).to(torch.long), name)
    return label_map
