# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The clean graph, cut where recorded results begin, so that what runs before them is swept once.

A view's loss and the clean loss meet at the same tensors: the feature at the tap, and whatever
passes the tap by. Their gradients are summed there, and one sweep takes the sum on to the
parameters before. ``docs/design.md`` says why this way.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .gradients import GradientSum
from .guards import no_autocast

Gradients = Sequence[Tensor | None]


class Cut:
    """Tensors that one recorded call returned.

    Attributes:
        sources: The tensors, in the graph of what computed them; None where nothing before needs a
            gradient.
        gradients: What has arrived at each of them from behind the cut and waits to be swept on.
        at_tap: Whether this is the feature at a tap.
        arrived: For features at a tap: the clean gradient, for methods; a sweep takes it from
            ``gradients``.
    """

    def __init__(self, at_tap: bool = False) -> None:
        self.sources: list[Tensor | None] = []
        self.gradients: list[Tensor | None] = []
        self.at_tap = at_tap
        self.arrived: list[Tensor | None] | None = None
        self._owned: set[int] = set()

    def take(self) -> list[Tensor | None]:
        """What waits, which then waits no more."""
        taken, self.gradients = self.gradients, [None] * len(self.gradients)
        self._owned.clear()
        return taken

    def receive(self, index: int, gradient: Tensor) -> None:
        """Add to the gradient of one tensor."""
        before = self.gradients[index]
        if before is not None and index in self._owned and before.dtype == gradient.dtype:
            before += gradient
        elif before is not None:
            # Autograd may have given the same tensor to others.
            self.gradients[index] = before + gradient
            self._owned.add(index)
        else:
            self.gradients[index] = gradient


class Tape:
    """All cuts of one clean pass, in the order of the calls."""

    def __init__(self) -> None:
        self.cuts: list[Cut] = []
        # Every gate leads to it, so that a sweep toward it passes all of them.
        self.token = torch.zeros((), requires_grad=True)

    def gate(self, value: Tensor, receive: Callable[[Tensor], None]) -> Tensor:
        """``value`` for what comes behind a cut: same memory, and its gradient goes to
        ``receive`` instead of into the graph before.
        """
        return _Gate.apply(value.data, self.token, receive)

    def cut(
        self, leaves: Sequence[Any], at_tap: bool = False
    ) -> tuple[list[Any], Cut, list[int | None]]:
        """Cut the graph at some tensors.

        Args:
            leaves: Of a value. At a tap, what needs no gradient gets one all the same.
            at_tap: Whether they are the feature at a tap.

        Returns:
            The leaves to go on with, the cut, and the index in the cut of each leaf or None.
        """
        cut = Cut(at_tap)
        passed = list(leaves)
        slots: list[int | None] = []
        known: dict[int, tuple[int, Tensor]] = {}
        for i, leaf in enumerate(leaves):
            if not (is_differentiable(leaf) and (at_tap or leaf.requires_grad)):
                slots.append(None)
                continue
            if id(leaf) not in known:
                index = len(cut.sources)
                # Held by a node of its own: what is written into the leaf later moves its node.
                cut.sources.append(hold(leaf) if leaf.requires_grad else None)
                cut.gradients.append(None)
                known[id(leaf)] = index, self.gate(leaf, partial(cut.receive, index))
            index, passed[i] = known[id(leaf)]
            slots.append(index)
        if cut.sources:
            self.cuts.append(cut)
        return passed, cut, slots

    @property
    def waiting(self) -> list[Tensor]:
        """Gradients that have arrived at cuts."""
        return [g for cut in self.cuts for g in cut.gradients if g is not None]

    def sweep(self, into: GradientSum, until: int = 0, release: bool = False) -> None:
        """Take gradients on from the last cut to the one numbered ``until``, which is swept, too.

        Args:
            into: Gets those of its parameters.
            until: Cuts before it keep what arrives.
            release: Let go of each cut's graph once it is swept.
        """
        for number in reversed(range(until, len(self.cuts))):
            cut = self.cuts[number]
            if cut.at_tap and cut.arrived is None:
                cut.arrived = list(cut.gradients)
            pairs = [
                (source, gradient.to(source.dtype))
                for source, gradient in zip(cut.sources, cut.take(), strict=True)
                if source is not None and gradient is not None
            ]
            if pairs:
                sources, gradients = map(list, zip(*pairs, strict=True))
                # Kept, because segments may share nodes; memory goes with the last reference.
                with no_autocast(sources[0]):
                    *found, _ = torch.autograd.grad(
                        sources,
                        [*into.parameters, self.token],
                        gradients,
                        retain_graph=True,
                        allow_unused=True,
                    )
                into.add(found, self.waiting)
                del sources, gradients, found
            del pairs
            if release:
                cut.sources = [None] * len(cut.sources)

    def release(self) -> None:
        """Let go of the graph."""
        for cut in self.cuts:
            cut.sources = [None] * len(cut.sources)
        self.cuts.clear()


def is_differentiable(leaf: Any) -> bool:
    """Whether a leaf of a value is a tensor that may have a gradient here."""
    return (
        isinstance(leaf, Tensor)
        and (leaf.is_floating_point() or leaf.is_complex())
        and torch.is_grad_enabled()
    )


def hold(value: Tensor) -> Tensor:
    """An alias of a tensor in the graph, which keeps its place there whatever is written into the
    tensor later.
    """
    return _Hold.apply(value)


class _Hold(torch.autograd.Function):
    """See :func:`hold`."""

    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        return value.data

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


class _Gate(torch.autograd.Function):
    """Identity whose gradient goes elsewhere.

    In place on an alias outside of the graph: what follows may write into it, as into the result of
    any other operation, and no memory is copied.
    """

    @staticmethod
    def forward(ctx, value: Tensor, token: Tensor, receive: Callable[[Tensor], None]) -> Tensor:
        ctx.receive = receive
        # What has no gradient (RoI coordinates) gets none, not zeros.
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(value)
        return value

    @staticmethod
    def backward(ctx, gradient: Tensor | None) -> tuple[None, None, None]:
        if gradient is not None:
            ctx.receive(gradient)
        return None, None, None
