# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Random batches in the form that a model's ``loss`` takes, for timings and tests without a data
set.
"""

from typing import Any

import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor
from torch.nn import ModuleList

from mmfeataug.utils.pixels import channels_of
from mmfeataug.utils.tasks import task_of


def random_batch(
    model: Any, size: tuple[int, int], images: int = 2, seed: int = 0
) -> tuple[Tensor, list]:
    """Normalised noise images with random targets.

    Args:
        model: A detector of mmdet, a segmentor of mmseg or a classifier of mmpretrain; decides the
            kind of targets and the device.
        size: Height and width in pixels, both divisible by 32.
        images: Batch size.
        seed: Same seed, same batch.

    Returns:
        ``inputs`` of shape ``(images, C, H, W)`` and the data samples: three boxes an image (with
        masks where the model needs them) and a label map, or a label map with one ignored stripe
        and its edges, or a class.

    Raises:
        TypeError: For a model of another kind.
    """
    make = dict(
        detection=_detection_sample,
        segmentation=_segmentation_sample,
        classification=_classification_sample,
    )[task_of(model)]
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    shape = images, channels_of(model), *size
    inputs = torch.randn(shape, generator=generator).to(device)
    samples = []
    for _ in range(images):
        sample = make(model, size, generator)
        sample.set_metainfo(
            dict(
                img_shape=size,
                ori_shape=size,
                pad_shape=size,
                batch_input_shape=size,
                scale_factor=(1.0, 1.0),
                # CenterNet undoes its padding by this.
                border=[0.0, size[0], 0.0, size[1]],
            )
        )
        samples.append(sample.to(device))
    return inputs, samples


def _detection_sample(model: Any, size: tuple[int, int], generator: torch.Generator):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    extent = torch.tensor([size[1], size[0]])
    corner = torch.rand(3, 2, generator=generator) * extent * 0.5
    boxes = torch.cat(
        [corner, corner + extent * (0.2 + 0.3 * torch.rand(3, 2, generator=generator))], 1
    )
    gt = InstanceData(
        bboxes=boxes, labels=torch.randint(0, _num_classes(model), (3,), generator=generator)
    )
    if _needs_masks(model):
        masks = torch.zeros(3, *size, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        gt.masks = BitmapMasks(masks.numpy(), *size)
    return DetDataSample(
        gt_instances=gt,
        ignored_instances=InstanceData(bboxes=torch.zeros(0, 4)),
        gt_sem_seg=PixelData(sem_seg=_label_map(_most_classes(model), size, generator)),
    )


def _segmentation_sample(model: Any, size: tuple[int, int], generator: torch.Generator):
    from mmseg.structures import SegDataSample

    labels = _label_map(model.num_classes, size, generator)
    edges = (labels != labels.roll(1, 2)).long()
    heads: Any = model.decode_head
    heads = heads if isinstance(heads, ModuleList) else [heads]
    labels[:, :4] = heads[-1].ignore_index
    return SegDataSample(gt_sem_seg=PixelData(data=labels), gt_edge_map=PixelData(data=edges))


def _classification_sample(model: Any, size: tuple[int, int], generator: torch.Generator):
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(
        torch.randint(0, _most_classes(model), (1,), generator=generator)
    )


def _label_map(classes: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """One label for each 8 x 8 pixels."""
    blocks = torch.randint(0, classes, (1, size[0] // 8, size[1] // 8), generator=generator)
    return blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)


def _needs_masks(model: Any) -> bool:
    box_head = type(getattr(model, 'bbox_head', None)).__name__
    return model.with_mask or 'RTMDetIns' in box_head or hasattr(model, 'panoptic_head')


def _num_classes(model: Any) -> int:
    """Of things: heads for stuff count theirs too."""
    head = getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
    head = head or getattr(model, 'bbox_head', None) or getattr(model, 'panoptic_head', None)
    head = head[0] if isinstance(head, ModuleList) else head
    for name in ('num_things_classes', 'num_classes'):
        if isinstance(getattr(head, name, None), int):
            return getattr(head, name)
    return _most_classes(model)


def _most_classes(model: Any) -> int:
    counts = (getattr(m, 'num_classes', None) for m in model.modules())
    return max((c for c in counts if isinstance(c, int)), default=1)
