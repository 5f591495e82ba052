# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The framework's loss scale for fp16, which augmented steps must not change: their gradients are
taken under a scale of their own, so that they say nothing about the framework's, neither that it
may grow nor that it is too large. A stock iteration in the same optimizer step does.
"""

from typing import Any


def loss_scale(optim_wrapper: Any) -> dict[str, Any] | None:
    """State of the ``GradScaler`` of an ``AmpOptimWrapper``: the scale, and how many good steps it
    has seen; None without one.
    """
    scaler = getattr(optim_wrapper, 'loss_scaler', None)
    return scaler.state_dict() if scaler is not None and scaler.is_enabled() else None


def keep_loss_scale(optim_wrapper: Any, before: dict[str, Any] | None) -> None:
    """Set the scale back, and the count of good steps.

    Args:
        optim_wrapper: See :func:`loss_scale`.
        before: Before an augmented step; None does nothing.
    """
    if before is not None:
        optim_wrapper.loss_scaler.load_state_dict(before)
