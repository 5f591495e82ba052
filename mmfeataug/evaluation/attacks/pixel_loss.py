# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The loss of a segmentor at each pixel, weighted: what SegPGD and CosPGD climb."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfeataug.engine import patched

TERM = 'loss_of_pixels'
"""Name of the term of the loss that stands in for those of the decode head."""

REMEDY = "use attack='pgd' or 'apgd', which climb the training loss as it is"

Weigh = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(logits, labels, wrong)`` to weights ``(N, H, W)``; labels that are ignored are 0."""


class PixelLossError(ValueError):
    """A model's final prediction is not one map of logits."""


class PixelLoss:
    """Cross entropy of the final prediction of an mmseg model, weighted at each pixel.

    The decode head (the last one of a cascade) computes it instead of its own losses, from the
    logits that it hands to them, resized to the label maps as it does. Auxiliary heads have no
    part in it. A head with one channel for two classes is taken as logits of 0 and of this channel.

    Args:
        model: A segmentor.

    Raises:
        PixelLossError: If it has no decode head that gets logits.
    """

    def __init__(self, model: nn.Module) -> None:
        head: Any = getattr(model, 'decode_head', None)
        self.head: Any = head[-1] if isinstance(head, nn.ModuleList) else head
        if not hasattr(self.head, 'loss_by_feat') or not hasattr(self.head, 'ignore_index'):
            raise PixelLossError(
                f'{type(model).__name__} has no decode_head with a loss at each pixel, which '
                f'SegPGD and CosPGD weigh: {REMEDY}'
            )

    @contextmanager
    def weighted(self, weigh: Weigh) -> Iterator[None]:
        """Within this context the decode head's only loss is :data:`TERM`.

        Args:
            weigh: Gives weights; the loss is the mean of weighted ones over pixels with a label.

        Raises:
            PixelLossError: When the head is called, if its output is not one map of logits.
        """

        def instead(module: nn.Module, name: str, original: Callable) -> Callable:
            def loss_by_feat(logits: Any, samples: Any) -> dict[str, Tensor]:
                labels = torch.cat([sample.gt_sem_seg.data for sample in samples])
                return {TERM: self._loss(logits, labels, weigh)}

            return loss_by_feat

        with patched([(self.head, 'loss_by_feat', instead)]):
            yield

    def _loss(self, logits: Any, labels: Tensor, weigh: Weigh) -> Tensor:
        head = self.head
        if not isinstance(logits, Tensor) or logits.dim() != 4:
            raise PixelLossError(
                f'{type(head).__name__} has not one map of logits ({type(logits).__name__}), whose '
                f'pixels SegPGD and CosPGD weigh: {REMEDY}'
            )
        logits = F.interpolate(
            logits.float(), labels.shape[-2:], mode='bilinear', align_corners=head.align_corners
        )
        shift = 0.0
        if logits.shape[1] == 1:
            # The probability from which on a pixel is of class 1.
            shift = float(torch.logit(torch.tensor(head.threshold or 0.5)))
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        valid = (labels != head.ignore_index) & (labels < logits.shape[1])
        known = labels.where(valid, torch.zeros_like(labels))
        offset = logits.new_tensor([shift] + [0.0] * (logits.shape[1] - 1)).reshape(-1, 1, 1)
        wrong = (logits + offset).argmax(1) != known
        weights = weigh(logits, known, wrong) * valid
        losses = F.cross_entropy(logits, known, reduction='none')
        return (weights * losses).sum() / valid.sum().clamp(min=1)
