# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The clean graph, cut where recorded results begin, so that what runs before them is swept once.

A view's loss and the clean loss meet at the same tensors: the feature at the tap, and whatever
passes the tap by. Their gradients are summed there, and one sweep takes the sum on to the
parameters before. ``docs/design.md`` says why this way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .gradients import GradientSum
from .guards import no_autocast

Gradients = Sequence[Tensor | None]


class Source:
    """One tensor at which the clean graph is cut.

    Args:
        tensor: In the graph of what computed it; None where nothing before needs a gradient.

    Attributes:
        gradient: What has arrived from behind the cut and waits to be swept on.
    """

    def __init__(self, tensor: Tensor | None) -> None:
        self.tensor = tensor
        self.gradient: Tensor | None = None
        self._swept: Tensor | None = None
        self._was_swept = self._owned = False

    def receive(self, gradient: Tensor) -> None:
        """Add to the gradient."""
        before = self.gradient
        if before is None:
            self.gradient = gradient
        elif self._owned and before.dtype == gradient.dtype:
            before += gradient
        else:
            # Autograd may have given the same tensor to others.
            self.gradient, self._owned = before + gradient, True

    def take(self, keep: bool) -> Tensor | None:
        """What waits, which then waits no more.

        Args:
            keep: The first time for :meth:`arrived`.
        """
        taken, self.gradient, self._owned = self.gradient, None, False
        if keep and not self._was_swept:
            self._swept = taken
        self._was_swept = True
        return taken

    def arrived(self) -> Tensor | None:
        """The first that waited, taken or not: the gradient of the clean loss. Asked for once."""
        found, self._swept = self._swept if self._was_swept else self.gradient, None
        self._was_swept = True
        return found


@dataclass
class Cut:
    """Tensors that one recorded call returned.

    Attributes:
        sources: One for each of them that may have a gradient.
        at_tap: Whether this is the feature at a tap.
    """

    sources: list[Source] = field(default_factory=list)
    at_tap: bool = False

    def release(self) -> None:
        """Let go of the graph."""
        for source in self.sources:
            source.tensor = None


@dataclass
class TermGradients:
    """Gradients of one term of the objective.

    Attributes:
        parameters: One for each parameter that learns.
        received: At tensors where the clean graph is cut, for the sweep of what runs before.
    """

    parameters: Gradients
    received: list[tuple[Source, Tensor]] = field(default_factory=list)

    def all(self) -> list[Tensor | None]:
        """Every gradient there is."""
        return [*self.parameters, *(gradient for _, gradient in self.received)]


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
    ) -> tuple[list[Any], list[Source | None]]:
        """Cut the graph at some tensors.

        Args:
            leaves: Of a value. At a tap, what needs no gradient gets one all the same.
            at_tap: Whether they are the feature at a tap.

        Returns:
            The leaves to go on with, and for each where a gradient at it goes, or None.
        """
        known: dict[int, tuple[Tensor, Source]] = {}
        passed, sources = list(leaves), list[Source | None]()
        for i, leaf in enumerate(leaves):
            if not (is_differentiable(leaf) and (at_tap or leaf.requires_grad)):
                sources.append(None)
                continue
            if id(leaf) not in known:
                # Held by a node of its own: what is written into the leaf later moves its node.
                source = Source(hold(leaf) if leaf.requires_grad else None)
                known[id(leaf)] = self.gate(leaf, source.receive), source
            passed[i], source = known[id(leaf)]
            sources.append(source)
        if known:
            self.cuts.append(Cut([source for _, source in known.values()], at_tap))
        return passed, sources

    @property
    def waiting(self) -> list[Tensor]:
        """Gradients that have arrived at cuts."""
        every = (source.gradient for cut in self.cuts for source in cut.sources)
        return [gradient for gradient in every if gradient is not None]

    def sweep(self, into: GradientSum, until: int = 0, release: bool = False) -> None:
        """Take gradients on from the last cut to the one numbered ``until``, which is swept, too.

        Args:
            into: Gets those of its parameters.
            until: Cuts before it keep what arrives.
            release: Let go of each cut's graph once it is swept.
        """
        for number in reversed(range(until, len(self.cuts))):
            cut = self.cuts[number]
            taken = [(source.tensor, source.take(cut.at_tap)) for source in cut.sources]
            pairs = [(t, g.to(t.dtype)) for t, g in taken if t is not None and g is not None]
            del taken
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
                cut.release()

    def release(self) -> None:
        """Let go of the graph."""
        for cut in self.cuts:
            cut.release()
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
