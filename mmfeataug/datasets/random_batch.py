# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Random batches in the form that a model's ``loss`` takes, for timings and tests without a data
set.
"""

from typing import Any

import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor


def random_batch(
    model: Any, size: tuple[int, int], images: int = 2, seed: int = 0
) -> tuple[Tensor, list]:
    """Normalised noise images with random targets.

    Args:
        model: A detector of mmdet or a segmentor of mmseg; decides the kind of targets and the
            device.
        size: Height and width in pixels, both divisible by 32.
        images: Batch size.
        seed: Same seed, same batch.

    Returns:
        ``inputs`` of shape ``(images, 3, H, W)`` and the data samples: three boxes an image (with
        masks where the model needs them), or a label map with one ignored stripe.

    Raises:
        TypeError: For a model of another kind.
    """
    package = next(
        (c.__module__.partition('.')[0] for c in type(model).__mro__ if 'mm' in c.__module__[:2]),
        '',
    )
    make = {'mmdet': _detection_sample, 'mmseg': _segmentation_sample}.get(package)
    if make is None:
        raise TypeError(
            f'{type(model).__name__} of {package or "an unknown package"}: need a detector or '
            'segmentor'
        )
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    inputs = torch.randn(images, 3, *size, generator=generator).to(device)
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
    if getattr(model, 'with_mask', False):
        masks = torch.zeros(3, *size, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        gt.masks = BitmapMasks(masks.numpy(), *size)
    return DetDataSample(gt_instances=gt, ignored_instances=InstanceData(bboxes=torch.zeros(0, 4)))


def _segmentation_sample(model: Any, size: tuple[int, int], generator: torch.Generator):
    from mmseg.structures import SegDataSample

    blocks = torch.randint(
        0, model.num_classes, (1, size[0] // 8, size[1] // 8), generator=generator
    )
    labels = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[:, :4] = model.decode_head.ignore_index
    return SegDataSample(gt_sem_seg=PixelData(data=labels))


def _num_classes(model: Any) -> int:
    return max(
        (
            m.num_classes
            for m in model.modules()
            if isinstance(getattr(m, 'num_classes', None), int)
        ),
        default=1,
    )
