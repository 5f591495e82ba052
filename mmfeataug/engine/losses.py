# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Loss dicts as frameworks pass them around, and what is logged beside them."""

from typing import Any

import torch
from torch import Tensor

from .gradients import GradientSum

Losses = dict[str, Any]
"""Name to tensor or list of tensors; terms of the objective have ``loss`` in their name."""


def detached(losses: Losses) -> Losses:
    """The values, out of the graph."""
    return {
        key: value.detach() if isinstance(value, Tensor) else [v.detach() for v in value]
        for key, value in losses.items()
    }


def weighted(losses: Losses, weight: float) -> Losses:
    """The terms of the objective times ``weight``, the rest as it is."""
    if weight == 1:
        return dict(losses)
    return {
        key: value
        if 'loss' not in key
        else value * weight
        if isinstance(value, Tensor)
        else [v * weight for v in value]
        for key, value in losses.items()
    }


def carry(losses: Losses, collected: GradientSum) -> None:
    """Hang the summed gradients on the first loss term; the others are constants by now."""
    key = next(k for k, v in losses.items() if 'loss' in k and (isinstance(v, Tensor) or v))
    value = losses[key]
    if isinstance(value, Tensor):
        losses[key] = collected.attach_to(value)
    else:
        losses[key] = [collected.attach_to(value[0]), *value[1:]]


def perturbation_norms(clean: list[Tensor], view: list[Tensor]) -> dict[str, Tensor]:
    """Of the perturbation: l-inf norm, l2 norm (mean over samples), mean absolute shift of the
    channels' means.
    """
    deltas = [v - c for v, c in zip(view, clean, strict=True)]
    rows = [d.flatten(1) if d.dim() > 1 else d[None] for d in deltas]
    means = [
        d.flatten(2).mean((0, 2)) if d.dim() > 3 else d.flatten(0, -2).mean(0)
        for d in deltas
        if d.dim() > 1 and d.numel()
    ]
    norms = {
        'linf': torch.stack(
            [d.abs().max() if d.numel() else d.new_zeros(()) for d in deltas]
        ).max(),
        'l2': torch.stack([r.norm(dim=1).sum() / max(len(r), 1) for r in rows]).norm(),
    }
    if means:
        norms['shift'] = torch.stack([m.abs().mean() for m in means]).mean()
    return norms
