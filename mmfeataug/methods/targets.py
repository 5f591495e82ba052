# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Targets of mixed images: labels, label maps and boxes of their parts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from mmfeataug.engine import patched
from mmfeataug.functional import mean_inside

_WEIGHTED: WeakSet[nn.Module] = WeakSet()
"""Losses that were seen to take a weight for each pixel."""


@dataclass
class Mixture:
    """Samples, shares and masks of mixed images.

    Attributes:
        index: ``(N, B)``; the samples each is made of.
        shares: ``(N,)``; of the labels; they sum to 1.
        masks: ``(B, N, H, W)``; of the pixels; they sum to 1 over ``N``.
    """

    index: Tensor
    shares: Tensor
    masks: Tensor


@contextmanager
def mixed_targets(
    model: nn.Module, samples: Sequence[Any], mixture: Mixture, generator: torch.Generator
) -> Iterator[list[Any]]:
    """Data samples of mixed images, for losses computed within this context.

    - Classification: scores of all classes, each part's label with its share.
    - Segmentation (ours): the decode losses are sums over the parts' label maps, weighted at each
      pixel by the mask.
    - Detection (ours): boxes of all parts; each is kept with the probability of the mask's mean
      inside it. A box that is left out is background, so on average its label is a soft one.

    Raises:
        ValueError: For models whose targets cannot be mixed so.
    """
    first = samples[0]
    # HTC and panoptic models learn from a map of classes beside the boxes.
    if any(path.endswith(('semantic_head', 'panoptic_head')) for path, _ in model.named_modules()):
        raise ValueError(f'{type(model).__name__} learns from boxes and maps, which are not mixed')
    if 'gt_instances' in first:
        yield _boxes(samples, mixture, generator)
    elif 'gt_sem_seg' in first:
        with patched(_weighted_losses(model, samples, mixture)):
            yield list(samples)
    elif 'gt_label' in first:
        yield _scores(model, samples, mixture)
    else:
        raise ValueError(
            f'{type(model).__name__}: its targets are neither labels nor boxes nor one map of '
            'classes, and cannot be mixed'
        )


def _scores(model: nn.Module, samples: Sequence[Any], mixture: Mixture) -> list[Any]:
    hot = torch.stack([_score(model, sample) for sample in samples])
    mixed = (mixture.shares[:, None, None].to(hot) * hot[mixture.index]).sum(0)
    return [
        sample.clone().set_gt_score(score) for sample, score in zip(samples, mixed, strict=True)
    ]


def _score(model: nn.Module, sample: Any) -> Tensor:
    if 'gt_score' in sample:
        return sample.gt_score.float()
    classes = getattr(getattr(model, 'head', None), 'num_classes', None)
    if classes is None:
        raise ValueError(
            f'{type(model).__name__} has no head.num_classes, so that its labels cannot be mixed: '
            'let the images have scores, data_preprocessor=dict(num_classes=..., to_onehot=True)'
        )
    return F.one_hot(sample.gt_label, classes).float().sum(0)


def _weighted_losses(
    model: nn.Module, samples: Sequence[Any], mixture: Mixture
) -> Iterator[tuple[nn.Module, str, Callable]]:
    maps = torch.cat([sample.gt_sem_seg.data for sample in samples])
    parts = [(maps[order], mixture.masks[:, n]) for n, order in enumerate(mixture.index)]

    def of_mixture(module: nn.Module, name: str, original: Callable) -> Callable:
        def forward(
            prediction: Tensor, label: Tensor, weight: Tensor | None = None, **kwargs: Any
        ) -> Tensor:
            if label.shape != maps.shape:
                raise ValueError(
                    f'{type(module).__name__} gets labels of shape {tuple(label.shape)}, not the '
                    f'label maps {tuple(maps.shape)}: targets of this head cannot be mixed'
                )
            if module not in _WEIGHTED:
                _check_weights(module, original, prediction, parts[0][0], kwargs)
            total = prediction.new_zeros(())
            for target, mask in parts:
                share = mask.to(prediction) if weight is None else mask.to(prediction) * weight
                total = total + original(prediction, target, weight=share, **kwargs)
            return total

        return forward

    losses: set[nn.Module] = set()
    for module in model.modules():
        if (own := getattr(module, 'loss_decode', None)) is not None:
            _refuse_more(module)
            losses |= set(own) if isinstance(own, nn.ModuleList) else {own}
    if not losses:
        raise ValueError(
            f'{type(model).__name__} has no loss_decode: targets of segmentors that do not learn '
            'from a loss at each pixel cannot be mixed'
        )
    for module in losses:
        yield module, 'forward', of_mixture


def _refuse_more(head: nn.Module) -> None:
    """What else learns from the unmixed map of the first part."""
    more = [n for n, _ in head.named_children() if n.startswith('loss_') and n != 'loss_decode']
    if getattr(head, 'sampler', None) is not None:
        more.append('sampler')
    if more:
        raise ValueError(
            f'{type(head).__name__}: {", ".join(more)} would go by the label maps of unmixed '
            'images, so its targets cannot be mixed; leave it out'
        )


def _check_weights(
    module: nn.Module, original: Callable, prediction: Tensor, target: Tensor, kwargs: dict
) -> None:
    """Without any weight there must be no loss."""
    zero = torch.zeros(target.shape, dtype=prediction.dtype, device=prediction.device)
    try:
        with torch.no_grad():
            blind = bool(original(prediction, target, weight=zero, **kwargs))
    except (AssertionError, RuntimeError, TypeError, ValueError):
        blind = True
    if blind:
        raise ValueError(
            f'{type(module).__name__} takes no weight for each pixel, so its targets cannot be '
            'mixed: use CrossEntropyLoss in loss_decode'
        )
    _WEIGHTED.add(module)


def _boxes(samples: Sequence[Any], mixture: Mixture, generator: torch.Generator) -> list[Any]:
    mixed = []
    for b, sample in enumerate(samples):
        parts = [samples[order[b]].gt_instances for order in mixture.index]
        shares = mean_inside(mixture.masks[b], [part.bboxes for part in parts])
        kept = [
            part[torch.rand(share.shape, generator=generator, device=share.device) < share]
            for part, share in zip(parts, shares, strict=True)
        ]
        # All parts reach as far as the batch does.
        shape = tuple(mixture.masks.shape[-2:])
        for part in kept:
            if 'masks' in part:
                part.masks = part.masks.pad(shape)
        new = sample.clone()
        new.gt_instances = InstanceData.cat(kept)
        ignored = [samples[order[b]].get('ignored_instances') for order in mixture.index]
        if regions := [InstanceData(bboxes=each.bboxes) for each in ignored if each]:
            new.ignored_instances = InstanceData.cat(regions)
        new.set_metainfo(dict(img_shape=shape, pad_shape=shape, batch_input_shape=shape))
        mixed.append(new)
    return mixed
