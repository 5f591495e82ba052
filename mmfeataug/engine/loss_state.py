# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What losses keep between calls, put back after an extra pass."""

from collections import deque
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class LossState:
    """Buffers and plain attributes that a call of ``loss()`` changes, apart from batch norms.

    Dynamic R-CNN keeps an IoU history, others moving averages or queues. Which modules do is learnt
    in the first clean passes (:meth:`learn`); from then on only those are saved and restored.

    Args:
        model: All of its modules are watched at first, with the helpers they hold.
        passes: Number of clean passes to learn from.
    """

    def __init__(self, model: nn.Module, passes: int = 10) -> None:
        modules = [m for m in model.modules() if not isinstance(m, _BatchNorm)]
        self._places: list[list[dict[str, Any]]] = [_namespaces(m) for m in modules]
        self._changed: set[int] = set()
        self._passes = passes

    def save(self) -> list[list[dict[str, Any]]]:
        """Copies of every plain value in every watched place."""
        return [[_copy_plain(space) for space in group] for group in self._places]

    def learn(
        self, before: list[list[dict[str, Any]]], after: list[list[dict[str, Any]]]
    ) -> tuple[list[list[dict[str, Any]]], list[list[dict[str, Any]]]]:
        """Note what a clean pass changed; after enough passes, watch nothing else any more.

        Args:
            before: :meth:`save` before the pass.
            after: :meth:`save` after it.

        Returns:
            Both, reduced to what is still watched.
        """
        if self._passes == 0:
            return before, after
        self._passes -= 1
        pairs = enumerate(zip(before, after, strict=True))
        self._changed |= {i for i, pair in pairs if not _equal(*pair)}
        if self._passes:
            return before, after
        kept = sorted(self._changed)
        self._places = [self._places[i] for i in kept]
        return [before[i] for i in kept], [after[i] for i in kept]

    def restore(self, saved: list[list[dict[str, Any]]]) -> None:
        """Put the values of :meth:`save` back, in place where the container or tensor allows it."""
        for group, copies in zip(self._places, saved, strict=True):
            for space, copied in zip(group, copies, strict=True):
                for key in [k for k, v in space.items() if _is_state(k, v) and k not in copied]:
                    del space[key]
                for key, value in copied.items():
                    if not _equal(space.get(key), value):
                        space[key] = _write_back(space.get(key), value)


_SCALARS = (bool, int, float, str, type(None))
_CONTAINERS = (list, dict, set, deque)
_NO_STATE = (nn.Module, torch.Tensor, type, FunctionType, MethodType, ModuleType, *_CONTAINERS)


def _namespaces(module: nn.Module) -> list[dict[str, Any]]:
    """The module's own attributes, its buffers, and the attributes of helpers it holds (assigners,
    samplers).
    """
    spaces = [module.__dict__, module._buffers]
    for value in list(module.__dict__.values()):
        for helper in value if isinstance(value, (list, tuple)) else [value]:
            if hasattr(helper, '__dict__') and not isinstance(helper, _NO_STATE):
                spaces.append(helper.__dict__)
    return spaces


def _is_state(key: str, value: Any) -> bool:
    # What nn.Module keeps for itself (_parameters, hooks, ...) is structure, not state.
    if key.startswith('_') and isinstance(value, (dict, set)):
        return False
    if isinstance(value, torch.Tensor):
        return not isinstance(value, nn.Parameter)
    return isinstance(value, _SCALARS + _CONTAINERS)


def _copy_plain(space: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) for key, value in space.items() if _is_state(key, value)}


def _copy(value: Any) -> Any:
    """Containers and tensors in them are copied, other objects stay the same."""
    if isinstance(value, nn.Parameter):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if not isinstance(value, _CONTAINERS):
        return value
    copied: Any = value.copy()
    if not isinstance(copied, set):
        for key in copied if isinstance(copied, dict) else range(len(copied)):
            copied[key] = _copy(copied[key])
    return copied


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and bool(torch.equal(a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple, deque)) and isinstance(b, (list, tuple, deque)):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, (*_SCALARS, set)) and isinstance(b, (*_SCALARS, set)):
        return a == b
    return a is b


def _write_back(current: Any, saved: Any) -> Any:
    if isinstance(saved, torch.Tensor):
        if isinstance(current, torch.Tensor) and current.shape == saved.shape:
            current.data.copy_(saved)
            return current
        return saved.clone()
    if type(current) is not type(saved) or not isinstance(saved, _CONTAINERS):
        return _copy(saved)
    target: Any = current
    if isinstance(saved, dict):
        values: Any = {key: _write_back(target.get(key), value) for key, value in saved.items()}
    else:
        # Elements may have moved along: what stood here may be needed by the clean graph.
        values = _copy(saved)
    target.clear()
    put = target.extend if isinstance(saved, (list, deque)) else target.update
    put(values)
    return target
