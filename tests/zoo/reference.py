# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What a view's loss and gradients are, by the stock loss and plain forward hooks alone."""

import copy
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten


@dataclass
class Clean:
    """The clean pass.

    Attributes:
        losses: Loss dict.
        gradients: One a parameter that asks for it.
        features: By tap: every float tensor that passed, detached, in call order.
        slopes: By tap: gradient of the loss toward each of them, None where there is none.
    """

    losses: dict[str, Any]
    gradients: list[Tensor | None]
    features: dict[str, list[Tensor]]
    slopes: dict[str, list[Tensor | None]]


def perturbed(feature: Tensor) -> Tensor:
    """The feature with a wave on it, a tenth of its standard deviation high."""
    wave = torch.arange(feature.numel(), dtype=feature.dtype).cos().view(feature.shape)
    return feature + 0.1 * feature.std(correction=0) * wave


def seed(value: int = 3) -> None:
    """All random streams."""
    torch.manual_seed(value)
    np.random.seed(value)
    random.seed(value)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that ask for a gradient."""
    return [p for p in model.parameters() if p.requires_grad]


def detached(losses: dict[str, Any]) -> dict[str, list[Tensor]]:
    """Every term as a list."""
    return {
        k: [t.detach() for t in (v if isinstance(v, (list, tuple)) else [v])]
        for k, v in losses.items()
    }


def clean_pass(model: nn.Module, batch: Any, paths: list[str]) -> Clean:
    """The stock loss once; what passes the taps becomes points to differentiate to."""
    model = copy.deepcopy(model)
    points: dict[str, list[Tensor]] = {path: [] for path in paths}

    def watch(path: str) -> Callable[[Tensor], Tensor]:
        def call(leaf: Tensor) -> Tensor:
            own = leaf.view_as(leaf) if leaf.requires_grad else leaf.detach().requires_grad_()
            points[path].append(own)
            return own.clone()

        return call

    seed()
    with _changed_outputs(model, {path: watch(path) for path in points}):
        losses = model.loss(*copy.deepcopy(batch))
    leaves = [p for path in paths for p in points[path]]
    parameters = trained(model)
    total = model.parse_losses(losses)[0]
    gradients = torch.autograd.grad(total, parameters + leaves, allow_unused=True)
    rest = iter(gradients[len(parameters) :])
    return Clean(
        losses=detached(losses),
        gradients=list(gradients[: len(parameters)]),
        features={path: [p.detach() for p in own] for path, own in points.items()},
        slopes={path: [next(rest) for _ in own] for path, own in points.items()},
    )


def view_pass(
    model: nn.Module, batch: Any, path: str, features: list[Tensor]
) -> tuple[dict[str, list[Tensor]], list[Tensor | None]]:
    """The stock loss once more, in full, with these features at the tap and no gradient from
    before it: its terms and the parameters' gradients."""
    model = copy.deepcopy(model)
    parameters = trained(model)
    left = list(features)

    def change(_: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        return left.pop(0).clone()

    seed()
    with torch.no_grad(), _changed_outputs(model, {path: change}):
        losses = model.loss(*copy.deepcopy(batch))
        total = model.parse_losses(losses)[0]
        gradients: list[Tensor | None] = [None] * len(parameters)
        # Behind a last convolution there is nothing to train.
        if total.requires_grad:
            gradients = list(torch.autograd.grad(total, parameters, allow_unused=True))
    assert not left, 'the tap was called less often than in the clean pass'
    return detached(losses), gradients


def _changed_outputs(model: nn.Module, changes: dict[str, Callable[[Tensor], Tensor]]) -> ExitStack:
    """Until the stack is closed, float tensors that these modules return are changed."""
    stack = ExitStack()
    for path, change in changes.items():

        def hook(_: nn.Module, args: Any, output: Any, change: Any = change) -> Any:
            leaves, spec = tree_flatten(output)
            new: dict[int, Tensor] = {}
            for leaf in leaves:
                if isinstance(leaf, Tensor) and leaf.is_floating_point() and id(leaf) not in new:
                    new[id(leaf)] = change(leaf)
            return tree_unflatten([new.get(id(leaf), leaf) for leaf in leaves], spec)

        handle = model.get_submodule(path).register_forward_hook(hook)
        stack.callback(handle.remove)
    return stack
