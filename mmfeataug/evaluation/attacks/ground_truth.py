# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Ground truth of test pipelines, in the coordinates that training losses expect."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import Geometry

FIELDS = 'gt_instances', 'ignored_instances', 'gt_sem_seg'
"""What of a data sample has coordinates."""


def for_loss(
    samples: Sequence[Any], inputs: Tensor, model: Any, geometry: Geometry | None = None
) -> list[Any]:
    """Data samples to call ``loss`` with; the given ones stay as they are.

    Args:
        samples: As a data preprocessor leaves them.
        inputs: Images with their padding, ``(N, C, H, W)``.
        model: Says how label maps are padded.
        geometry: Of the data set, by which ground truth is brought to where the network sees it;
            None: it is there already.

    Raises:
        ValueError: If a sample has no ground truth or is not of the data set, or a step of the
            pipeline moves the image and nobody knows where to.
    """
    height, width = inputs.shape[-2:]
    size = (height, width)
    pad = getattr(model.data_preprocessor, 'seg_pad_val', 255)
    found = []
    for sample in samples:
        _require(sample)
        placed = [name for name in FIELDS if name in sample]
        moved = geometry.truth(sample) if geometry is not None and placed else ()
        # A container of its own.
        sample = sample.detach()
        for name in placed:
            if name in moved:
                setattr(sample, name, _like(getattr(moved, name), getattr(sample, name)))
        for name in FIELDS[:2]:
            if 'masks' in getattr(sample, name, ()):
                instances = getattr(sample, name).clone()
                instances.masks = instances.masks.pad(size)
                setattr(sample, name, instances)
        if 'gt_sem_seg' in sample:
            sample.gt_sem_seg = _padded(sample.gt_sem_seg, sample, size, pad)
        found.append(sample)
    return found


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


def _like(truth: Any, given: Any) -> Any:
    """Ground truth on the device of the given one, with boxes of its type."""
    truth = truth.clone()
    tensor = next((v for v in given.values() if isinstance(v, Tensor)), None)
    if tensor is not None:
        truth = truth.to(tensor.device)
    if isinstance(given.get('bboxes'), Tensor) and hasattr(truth.bboxes, 'tensor'):
        truth.bboxes = truth.bboxes.tensor
    return truth


def _padded(label_map: Any, sample: Any, size: tuple[int, int], pad: int) -> Any:
    """A label map of the size of what the network sees; a batch may be of files of several."""
    name = 'data' if 'data' in label_map else 'sem_seg'
    labels = getattr(label_map, name)
    height, width = sample.metainfo.get('img_shape', size)[:2]
    if labels.shape[-2:] == (height, width) == size:
        return label_map
    resized = F.interpolate(labels[None].float(), (height, width), mode='nearest')[0]
    padding = (0, size[1] - width, 0, size[0] - height)
    label_map = type(label_map)()
    label_map.set_field(F.pad(resized, padding, value=pad).to(torch.long), name)
    return label_map
