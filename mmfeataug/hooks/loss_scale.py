# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The framework's loss scale for fp16, which augmented steps must not change: their gradients are
taken under a scale of their own, so that they say nothing about the framework's, neither that it
may grow nor that it is too large. A stock iteration in the same optimizer step does.
"""

from typing import Any


def loss_scale(optim_wrapper: Any) -> float | None:
    """Of the ``GradScaler`` of an ``AmpOptimWrapper``; None without one."""
    scaler = getattr(optim_wrapper, 'loss_scaler', None)
    return scaler.get_scale() if scaler is not None and scaler.is_enabled() else None


def keep_loss_scale(optim_wrapper: Any, before: float | None) -> None:
    """Set the scale back if it has changed.

    Args:
        optim_wrapper: See :func:`loss_scale`.
        before: The scale before an augmented step; None does nothing.
    """
    now = loss_scale(optim_wrapper)
    if before is not None and now is not None and now != before:
        optim_wrapper.loss_scaler.update(before)
