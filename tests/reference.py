# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What losses and gradients of views are, by the stock loss, forward hooks and plain autograd.

Nothing of the engine is used here: whole passes on copies of the model, one after the other.
"""

import copy
import random
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten


@dataclass
class Clean:
    """The clean pass.

    Attributes:
        losses: Loss dict, every term as a list.
        total: As the framework adds it up.
        gradients: By name of the parameter, None where there is none.
        features: By place: every float tensor that passed and that the loss depends on, in call
            order.
        movable: By place: which of all float tensors there these are.
        slopes: By place: gradient of the loss toward each of them.
        model: The copy that ran it, whose buffers have seen one batch.
    """

    losses: dict[str, Any]
    total: Tensor
    gradients: dict[str, Tensor | None]
    features: dict[tuple[str, str], list[Tensor]]
    movable: dict[tuple[str, str], list[int]]
    slopes: dict[tuple[str, str], list[Tensor]]
    model: nn.Module


@dataclass
class SeenView:
    """A view that a method made.

    Attributes:
        at, side: Where.
        features: Those that a method may move, moved.
        weight: Of its loss.
        learn: What it trains.
        at_tap: Called with the model when the tap is reached, to change what follows; batch norms
            have seen the clean batch then.
    """

    at: str
    features: list[Tensor]
    weight: float
    learn: str = 'tail'
    side: str = 'output'
    at_tap: Callable[[nn.Module], None] = field(default=lambda model: None)


def perturbed(feature: Tensor) -> Tensor:
    """The feature with a wave on it, a tenth of its standard deviation high."""
    wave = torch.arange(feature.numel(), dtype=feature.dtype).cos().view(feature.shape)
    return feature + 0.1 * feature.std(correction=0) * wave


def seed(value: int = 3) -> None:
    """All random streams."""
    torch.manual_seed(value)
    np.random.seed(value)
    random.seed(value)


def clean_pass(model: nn.Module, batch: Any, places: Sequence[tuple[str, str]] = ()) -> Clean:
    """The stock loss once; what passes the places becomes points to differentiate to."""
    model = copy.deepcopy(model)
    points: dict[tuple[str, str], list[Tensor]] = {place: [] for place in places}

    def watch(place: tuple[str, str]) -> Callable[[Tensor], Tensor]:
        def call(leaf: Tensor) -> Tensor:
            own = leaf.view_as(leaf) if leaf.requires_grad else leaf.detach().requires_grad_()
            points[place].append(own)
            return own.clone()

        return call

    with _changed(model, {place: watch(place) for place in points}) as loss:
        losses = loss(batch)
    total = model.parse_losses(losses)[0]
    names, parameters = zip(*_trained(model), strict=True)
    leaves = [p for place in places for p in points[place]]
    found = torch.autograd.grad(total, [*parameters, *leaves], allow_unused=True)
    rest = iter(found[len(parameters) :])
    slopes = {place: [next(rest) for _ in own] for place, own in points.items()}
    movable = {p: [i for i, s in enumerate(own) if s is not None] for p, own in slopes.items()}
    return Clean(
        losses=detached(losses),
        total=total.detach(),
        gradients=dict(zip(names, found, strict=False)),
        features={p: [points[p][i].detach() for i in movable[p]] for p in points},
        movable=movable,
        slopes={p: [slopes[p][i] for i in movable[p]] for p in points},
        model=model,
    )


def view_pass(
    model: nn.Module, batch: Any, view: SeenView, movable: Sequence[int]
) -> tuple[dict[str, list[Tensor]], Tensor, dict[str, Tensor | None]]:
    """The stock loss once more, in full, with a view at its tap: terms, total and gradients.

    ``'tail'``: no gradient before the tap. ``'skips'``: the view is a constant. ``'network'``: it
    is what passes the tap in a clean pass, plus a constant.
    """
    model = copy.deepcopy(model)
    number, clean = [0], []
    place = (view.at, view.side)
    if view.learn == 'network':

        def note(leaf: Tensor) -> Tensor:
            clean.append(leaf)
            return leaf.clone()

        # The same parameters, and buffers and state of its own.
        shadow = copy.deepcopy(model, {id(p): p for p in model.parameters()})
        with _changed(shadow, {place: note}) as loss:
            loss(batch)

    def change(leaf: Tensor) -> Tensor:
        if number[0] == 0:
            torch.set_grad_enabled(True)
            view.at_tap(model)
        index, number[0] = number[0], number[0] + 1
        if index not in movable:
            return leaf.detach().clone()
        new = view.features[movable.index(index)].to(leaf.dtype)
        if view.learn == 'network':
            return clean[index] + (new - clean[index]).detach()
        return new.clone()

    names, parameters = zip(*_trained(model), strict=True)
    gradients: list[Tensor | None] = [None] * len(parameters)
    with (
        torch.set_grad_enabled(view.learn != 'tail'),
        _changed(model, {place: change}) as loss,
    ):
        losses = loss(batch)
        total = model.parse_losses(losses)[0]
        # Behind a last convolution there is nothing to train.
        if total.requires_grad:
            gradients = list(torch.autograd.grad(total, parameters, allow_unused=True))
    return detached(losses), total.detach(), dict(zip(names, gradients, strict=True))


def expected(
    model: nn.Module, batch: Any, clean_weight: float, views: Sequence[SeenView]
) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    """Weighted losses of views, and the gradients of the whole objective."""
    places = list(dict.fromkeys((view.at, view.side) for view in views))
    clean = clean_pass(model, batch, places)
    total = {n: None if g is None else clean_weight * g for n, g in clean.gradients.items()}
    losses = []
    for view in views:
        movable = clean.movable[view.at, view.side]
        _, loss, gradients = view_pass(clean.model, batch, view, movable)
        losses.append(view.weight * loss)
        for name, gradient in gradients.items():
            if gradient is not None:
                before = total[name]
                more = view.weight * gradient
                total[name] = more if before is None else before + more
    return losses, total


def detached(losses: dict[str, Any]) -> dict[str, list[Tensor]]:
    """Every term as a list."""
    return {
        k: [t.detach() for t in (v if isinstance(v, (list, tuple)) else [v])]
        for k, v in losses.items()
    }


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad]


@contextmanager
def _changed(model: nn.Module, changes: dict[tuple[str, str], Callable[[Tensor], Tensor]]):
    """Within this context, float tensors that pass these places are changed. Yields the loss as a
    function of the batch, from seeded random streams on.
    """

    def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
        leaves, spec = tree_flatten(value)
        new: dict[int, Tensor] = {}
        for leaf in leaves:
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and id(leaf) not in new:
                new[id(leaf)] = change(leaf)
        return tree_unflatten([new.get(id(leaf), leaf) for leaf in leaves], spec)

    handles = []
    for (path, side), change in changes.items():
        if path == 'inputs':
            continue
        module = model.get_submodule(path)
        if side == 'output':

            def behind(_: nn.Module, args: Any, output: Any, change: Any = change) -> Any:
                return changed(output, change)

            handles.append(module.register_forward_hook(behind))
        else:

            def before(_: nn.Module, args: Any, kwargs: Any, change: Any = change) -> Any:
                return changed((args, kwargs), change)

            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))

    def loss(batch: Any) -> dict[str, Any]:
        inputs, *rest = copy.deepcopy(batch)
        seed()
        for (path, _), change in changes.items():
            if path == 'inputs':
                inputs = changed(inputs, change)
        return model.loss(inputs, *rest)

    try:
        yield loss
    finally:
        for handle in handles:
            handle.remove()
