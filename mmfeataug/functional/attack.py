# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Steps and projections of gradient attacks."""

from collections.abc import Sequence

import torch
from torch import Tensor


def signed_step(x: Tensor, grad: Tensor, step: float | Tensor) -> Tensor:
    """One ascent step of fixed size in the l-inf sense: ``x + step * sign(grad)``.

    Args:
        x: Any shape.
        grad: Gradient of the loss toward ``x``, same shape. Where it is 0 nothing moves.
        step: Step size in units of ``x``, a number or a tensor that broadcasts to ``x``.

    Source: Goodfellow et al., https://arxiv.org/abs/1412.6572, section 4; iterated in PGD,
    https://arxiv.org/abs/1706.06083, equation 1.
    """
    return x + step * grad.sign()


def project_linf(x: Tensor, center: Tensor, radius: float | Tensor) -> Tensor:
    """The point nearest to ``x`` whose elements differ from ``center`` by at most ``radius``.

    Args:
        x: Any shape.
        center: Same shape.
        radius: In units of ``x``, not negative, a number or a tensor that broadcasts to ``x``.
    """
    return torch.minimum(torch.maximum(x, center - radius), center + radius)


def interpolate(clean: Tensor, adversarial: Tensor, strengths: Sequence[float]) -> list[Tensor]:
    """Points on the segment from ``clean`` (strength 0) to ``adversarial`` (strength 1), one a
    strength.

    Args:
        clean: Any shape.
        adversarial: Same shape.
        strengths: Where on the segment; values above 1 extrapolate.

    Source: A-FAN's several strengths from one attack, https://arxiv.org/abs/2103.12171.
    """
    return [torch.lerp(clean, adversarial, float(s)) for s in strengths]
