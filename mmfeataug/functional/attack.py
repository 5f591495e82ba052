# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Steps and projections of gradient attacks."""

from collections.abc import Callable, Sequence

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


def l2_step(x: Tensor, grad: Tensor, step: float | Tensor) -> Tensor:
    """One ascent step of fixed size in the l2 sense: ``x + step * grad / |grad|``, each sample by
    itself.

    Args:
        x: ``(N, ...)``; one sample if it has no other dimension.
        grad: Gradient of the loss toward ``x``, same shape. A sample whose gradient is 0 stays.
        step: Step size in units of ``x``, a number or a tensor that broadcasts to ``x``.

    Source: PGD, https://arxiv.org/abs/1706.06083, in the l2 ball: the direction of steepest ascent.
    """
    # By the largest element first: squares of tiny gradients underflow.
    largest = grad.abs().amax(_within(grad), keepdim=True)
    scaled = grad / largest.where(largest > 0, torch.ones_like(largest))
    length = _length(scaled)
    return x + step * scaled / length.where(length > 0, torch.ones_like(length))


def project_l2(x: Tensor, center: Tensor, radius: float | Tensor) -> Tensor:
    """The point nearest to ``x`` whose l2 distance from ``center`` is at most ``radius``, each
    sample by itself.

    Args:
        x: ``(N, ...)``; one sample if it has no other dimension.
        center: Same shape.
        radius: In units of ``x``, not negative, a number or a tensor that broadcasts to ``x``.
    """
    offset = x - center
    length = _length(offset)
    inside = length <= radius
    safe = length.where(length > 0, torch.ones_like(length))
    return torch.where(inside, x, center + offset * (radius / safe))


def uniform_in_ball(like: Tensor, norm: str, generator: torch.Generator) -> Tensor:
    """A uniform draw from the unit ball of one sample.

    Args:
        like: Any shape; only its shape, type and device count. Draws are made on the CPU, so that
            every device gets the same ones.
        norm: ``'linf'`` or ``'l2'``.
        generator: Of the CPU.
    """
    if norm == 'linf':
        return torch.empty(like.shape).uniform_(-1, 1, generator=generator).to(like)
    direction = torch.randn(like.shape, generator=generator)
    # The share of the volume within radius r is r ** dimensions.
    share = torch.rand((), generator=generator) ** (1 / max(like.numel(), 1))
    length = direction.norm().clamp(min=torch.finfo(direction.dtype).tiny)
    return (direction * (share / length)).to(like)


def ascend(
    start: list[Tensor],
    gradients_at: Callable[[list[Tensor]], list[Tensor]],
    move: Callable[[list[Tensor], list[Tensor]], list[Tensor]],
    steps: int,
    first: list[Tensor] | None = None,
) -> list[Tensor]:
    """Gradient ascent of several steps.

    Args:
        start: Where it begins.
        gradients_at: Gradients of the loss toward given points.
        move: ``(points, gradients)`` to the next points: a step, a projection, bounds.
        steps: How many.
        first: Gradients at ``start``, where they are known already.
    """
    points = start
    for step in range(steps):
        known = first if step == 0 else None
        points = move(points, gradients_at(points) if known is None else known)
    return points


def _within(x: Tensor) -> tuple[int, ...]:
    """Dimensions of one sample."""
    return tuple(range(1, x.dim())) or tuple(range(x.dim()))


def _length(x: Tensor) -> Tensor:
    """l2 norm of each sample; broadcasts to ``x``."""
    return torch.linalg.vector_norm(x, 2, _within(x), keepdim=True)


def interpolate(clean: Tensor, adversarial: Tensor, strengths: Sequence[float]) -> list[Tensor]:
    """Points on the segment from ``clean`` (strength 0) to ``adversarial`` (strength 1), one per
    strength.

    Args:
        clean: Any shape.
        adversarial: Same shape.
        strengths: Where on the segment; values above 1 extrapolate.

    Source: A-FAN's several strengths from one attack, https://arxiv.org/abs/2103.12171.
    """
    return [torch.lerp(clean, adversarial, float(s)) for s in strengths]
