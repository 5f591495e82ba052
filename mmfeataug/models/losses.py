# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Losses that methods use."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfeataug.registry import MODELS


@MODELS.register_module()
class MarginSoftmaxLoss(nn.Module):
    """Cross entropy with a margin on the true logit and a temperature, as in SeA's release.

    ``temperature * CE((z - margin * onehot(y)) / temperature)``; margin 0 and temperature 1 are
    the plain cross entropy. It replaces ``CrossEntropyLoss`` in heads of mmdet, mmseg and
    mmpretrain: ``loss_cls=dict(type='mmfeataug.MarginSoftmaxLoss')``. In mmdet these are heads of
    RoIs, whose scores at test are those of the training, ``softmax(z / temperature)``.

    Args:
        margin: Subtracted from the true logit.
        temperature: Positive.
        loss_weight: Factor.
        use_sigmoid: Must be False; accepted so that only ``type`` has to change in a config.
        loss_name: Name in mmseg's loss dict.

    Source: https://arxiv.org/abs/2408.13351.
    """

    custom_cls_channels = True
    """Tells heads of mmdet to ask for :meth:`get_cls_channels` and :meth:`get_activation`."""

    def __init__(
        self,
        margin: float = 0.0,
        temperature: float = 0.1,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_margin_softmax',
        use_sigmoid: bool = False,
    ) -> None:
        super().__init__()
        if use_sigmoid:
            raise ValueError('use_sigmoid=True: the margin is on the logits of a softmax')
        self.use_sigmoid = use_sigmoid
        if not temperature > 0:
            raise ValueError(f'temperature={temperature!r}: give a positive number')
        self.margin, self.temperature = margin, temperature
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def get_cls_channels(self, num_classes: int) -> int:
        """Number of logits: one per class, and the background."""
        return num_classes + 1

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Scores of logits ``(N, K)``."""
        return (cls_score / self.temperature).softmax(-1)

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        ignore_index: int = -100,
        **kwargs,
    ) -> Tensor:
        """The loss.

        Args:
            cls_score: Logits, ``(N, K)`` or ``(N, K, H, W)``.
            label: ``(N,)`` or ``(N, H, W)``; or shares of the classes, shaped as the logits, such
                as mixed labels are.
            weight: Of each element of ``label``.
            avg_factor: What the sum is divided by; None: the number of elements.
            reduction_override: ``'none'``, ``'mean'`` or ``'sum'``.
            ignore_index: Label without a loss.
        """
        if label.is_floating_point():
            hot = label
        else:
            known = label != ignore_index
            hot = torch.zeros_like(cls_score).scatter_(
                1, label.where(known, 0).unsqueeze(1), known.unsqueeze(1).to(cls_score.dtype)
            )
        logits = (cls_score - self.margin * hot) / self.temperature
        loss = self.temperature * F.cross_entropy(
            logits, label, reduction='none', ignore_index=ignore_index
        )
        if weight is not None:
            loss = loss * weight
        if reduction_override == 'none':
            return self.loss_weight * loss
        total = loss.sum()
        if reduction_override != 'sum':
            total = total / (loss.numel() if avg_factor is None else avg_factor)
        return self.loss_weight * total
