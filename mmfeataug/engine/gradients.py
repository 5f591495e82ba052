# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Gradients taken inside the forward pass, handed to autograd as if it had computed them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .guards import no_autocast


def scaled_gradients(
    total: Tensor, toward: Sequence[Tensor], factor: float, keep: bool = False
) -> list[Tensor | None]:
    """Gradients of ``factor * total``, a scalar; None where it does not depend on a tensor.
    ``keep``: the graph may be asked again.
    """
    with no_autocast(total):
        outer = torch.full_like(total, factor)
        found = torch.autograd.grad(total, toward, outer, retain_graph=keep, allow_unused=True)
    return list(found)


class GradientSum:
    """Sum of parameter gradients over passes, added in place: one copy, however many passes.

    A parameter that no pass reached keeps None, as in plain training: a zero would let weight decay
    and momentum move it.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.gradients: list[Tensor | None] = [None] * len(self.parameters)
        self._memory: set[int] = set()

    def add(self, gradients: Sequence[Tensor | None], held: Sequence[Tensor | None] = ()) -> None:
        """Add one gradient per parameter; takes over tensors where there was none yet.

        Args:
            gradients: Of parameters.
            held: Other gradients that somebody keeps, and that may share memory with these.
        """
        kept_elsewhere = {g.untyped_storage().data_ptr() for g in held if g is not None}
        ours: list[Tensor] = []
        theirs: list[Tensor] = []
        for i, gradient in enumerate(gradients):
            if gradient is None:
                continue
            if (mine := self.gradients[i]) is None:
                self.gradients[i] = self._own(gradient, kept_elsewhere)
            else:
                ours.append(mine)
                theirs.append(gradient)
        if ours:
            torch._foreach_add_(ours, theirs)

    def _own(self, gradient: Tensor, kept_elsewhere: set[int]) -> Tensor:
        """The gradient, in memory of its own: autograd may return one tensor for two parameters
        (or for a parameter and a feature that is added to it), or one expanded from a single
        value, and what is added in place must not be added twice.
        """
        memory = gradient.untyped_storage().data_ptr()
        if memory in self._memory or memory in kept_elsewhere or 0 in gradient.stride():
            gradient = gradient.clone(memory_format=torch.contiguous_format)
        self._memory.add(memory)
        return gradient

    def scale(self, factor: float) -> None:
        """Multiply the sum in place."""
        reached = [g for g in self.gradients if g is not None]
        if reached and factor != 1:
            torch._foreach_mul_(reached, factor)

    def attach_to(self, value: Tensor) -> Tensor:
        """``value``, a scalar, with this sum as its gradient toward the parameters. The sum is
        given away.
        """
        pairs = [p for p in zip(self.parameters, self.gradients, strict=True) if p[1] is not None]
        self.gradients = []
        if not pairs:
            return value
        parameters, gradients = zip(*pairs, strict=True)
        return _Precomputed.apply(value, list(gradients), *parameters)


class _Precomputed(torch.autograd.Function):
    """Identity on ``value``; its backward returns gradients that are known already.

    DDP, GradScaler and accumulation see an ordinary graph whose leaves are exactly the parameters
    with a gradient.
    """

    @staticmethod
    def forward(ctx, value: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError(
                'the loss of an augmented step was differentiated twice; its gradients are taken '
                'in the forward pass and can be used once: call backward() once'
            )
        gradients, ctx.gradients = ctx.gradients, None
        # In place: no second copy. Without asking a GPU for the value: no synchronisation. Exact
        # where it is 1, and then not needed.
        factor = grad_output
        if factor.is_cuda or factor != 1:
            torch._foreach_mul_(gradients, factor.to(gradients[0].device))
        return None, None, *gradients


def all_finite(tensors: Sequence[Tensor | None]) -> bool:
    """Whether every element of every tensor is finite; one synchronisation with the host."""
    reached = [t for t in tensors if t is not None]
    return not reached or bool(finite_flag(reached, reached[0]))


def finite_flag(tensors: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """Whether every element of every tensor is finite, as a tensor on the device of ``like``.

    By l2 norms, the fastest reduction on CPU and GPU: what is so large that its square overflows
    counts as overflow too.
    """
    reached = [t for t in tensors if t is not None and t.numel()]
    if not reached:
        return torch.ones((), dtype=torch.bool, device=like.device)
    # The squares of half precision overflow soon.
    reached = [t.float() if t.dtype == torch.float16 else t for t in reached]
    norms = [n.float().to(like.device) for n in torch._foreach_norm(reached, 2)]
    return torch.stack(norms).isfinite().all()


class LossScale:
    """A power of two that keeps fp16 gradients of features above underflow, adapted as GradScaler
    does.

    It acts inside the forward pass, where the framework's own scaler is out of reach, and is
    divided out again.

    Attributes:
        value: The factor.
        good: Number of steps since the last overflow.
    """

    def __init__(self, start: float = 2.0**12, patience: int = 2000) -> None:
        self.value = start
        self._patience = patience
        self.good = 0

    def update(self, finite: bool) -> None:
        """Halve after an overflow, double after a long time without."""
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value = max(self.value / 2, 1.0)
        elif self.good % self._patience == 0:
            self.value *= 2
