# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""How much of a training step lies behind a point: what one view there costs."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .checkpointing import is_checkpointed, non_reentrant
from .leaves import flatten
from .tap import patched


@dataclass
class TailShare:
    """A place for a tap.

    Attributes:
        shapes: Of the float tensors that the module yields, in call order.
        share: Part of the step (loss and backward) behind it, 0 to 1, median over repeats.
    """

    shapes: list[tuple[int, ...]]
    share: float


def tail_shares(
    model: nn.Module,
    compute_loss: Callable[[], Tensor],
    paths: Iterable[str] | None = None,
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, TailShare]:
    """Time stamps at modules in forward and backward of stock steps.

    Args:
        model: In training mode; its gradients are cleared.
        compute_loss: Runs the stock forward pass and returns the total loss.
        paths: Dotted paths to look at; None looks at every module that is called.
        repeats: Steps measured, after one that is not.
        clock: Seconds; ``time.process_time`` where other processes share the machine.

    Returns:
        The modules that yield features (loss modules do not, and what activation checkpointing runs
        again is no place for a tap), in call order. Modules without a
        gradient (a frozen stem) count as if the whole backward pass lay behind them.
    """
    modules = dict(model.named_modules())
    names = {modules[p]: p for p in (modules if paths is None else paths) if p}
    on_cuda = next(model.parameters()).is_cuda

    def now() -> float:
        if on_cuda:
            torch.cuda.synchronize()
        return clock()

    shapes: dict[str, list[tuple[int, ...]]] = {}
    shares: dict[str, list[float]] = {}
    for repeat in range(repeats + 1):
        forward: dict[str, float] = {}
        backward: dict[str, float] = {}

        def watch(module: nn.Module, _: str, original: Callable) -> Callable:
            name = names[module]

            def call(*args: Any, **kwargs: Any) -> Any:
                if is_checkpointed():
                    return original(*args, **kwargs)
                result = original(*args, **kwargs)
                forward.setdefault(name, now())  # noqa: B023
                tensors = [
                    t
                    for t in flatten(result)
                    if isinstance(t, Tensor) and t.is_floating_point() and t.dim() > 1
                ]
                if repeat == 0:  # noqa: B023
                    shapes.setdefault(name, []).extend(tuple(t.shape) for t in tensors)
                for tensor in tensors:
                    if tensor.requires_grad:
                        tensor.register_hook(lambda _: backward.__setitem__(name, now()))  # noqa: B023
                return result

            return call

        model.zero_grad(set_to_none=True)
        places = (m for m in names if type(m).forward is not nn.Module.forward)
        with non_reentrant(model), patched((m, 'forward', watch) for m in places):
            start = now()
            compute_loss().backward()
            end = now()
        if repeat:
            for name, stamp in forward.items():
                shares.setdefault(name, []).append(
                    (backward.get(name, end) - stamp) / (end - start)
                )
    model.zero_grad(set_to_none=True)
    return {
        name: TailShare(shapes[name], statistics.median(values))
        for name, values in shares.items()
        # What is not reached in every step (levels of RoI extractors) may have none.
        if shapes.get(name)
    }


def first_choices(
    model: nn.Module, places: Mapping[str, TailShare], size: tuple[int, int]
) -> list[str]:
    """Places to try first: the first stage of the backbone at stride 4, and the first at stride 8.

    Args:
        model: Whose ``backbone`` is looked at.
        places: Of :func:`tail_shares`.
        size: Height and width of the images.

    Returns:
        Paths in call order; none where no stage has such a stride.
    """
    found: dict[int, str] = {}
    for path, place in places.items():
        if not path.startswith('backbone.') or _is_whole(place):
            continue
        outer = path.split('.')[:-1]
        outside = ('.'.join(outer[:i]) for i in range(2, len(outer) + 1))
        if any(p in places and not _is_whole(places[p]) for p in outside):
            # Inside of a stage.
            continue
        parts = model.get_submodule(path).modules()
        layers = sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in parts)
        stride = min((_stride(shape, size) for shape in place.shapes), default=0)
        # What has one layer is a stem.
        if layers > 1 and stride in (4, 8):
            found.setdefault(stride, path)
    return [path for path in places if path in found.values()]


def _is_whole(place: TailShare) -> bool:
    """Whether it is all of a backbone, with several levels. A stage may yield its map before and
    after downsampling.
    """
    return len(place.shapes) > 2


def _stride(shape: tuple[int, ...], size: tuple[int, int]) -> int:
    """Pixels of the image for a step in a map ``(N, C, H, W)`` or in tokens ``(N, L, C)``; 0 for
    other shapes.
    """
    if len(shape) == 4:
        return round(size[0] / shape[2])
    return round(math.sqrt(size[0] * size[1] / shape[1])) if len(shape) == 3 else 0
