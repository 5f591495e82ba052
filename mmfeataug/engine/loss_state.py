# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What losses keep between calls, put back after an extra pass."""

import copy
import sys
from collections import deque
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class LossState:
    """Buffers, frozen parameters and plain attributes that a call of ``loss()`` changes, apart
    from batch norms.

    Dynamic R-CNN keeps an IoU history, others moving averages, queues or prototypes. Plain are
    numbers, strings, tensors, arrays, and lists, tuples, dicts, sets and deques of these, in
    modules and in helpers that they hold, at any depth. Which places change is learnt in the first
    clean passes (:meth:`learn`); from then on only those are saved and restored.

    Args:
        model: All of its modules are watched at first.
        passes: Number of clean passes to learn from.
    """

    def __init__(self, model: nn.Module, passes: int = 10) -> None:
        seen: set[int] = set()
        modules = [m for m in model.modules() if not isinstance(m, _BatchNorm)]
        self._namespaces: list[list[dict[str, Any]]] = [list(_namespaces(m, seen)) for m in modules]
        self._changed: set[int] = set()
        self._passes = passes

    def save(self) -> list[list[dict[str, Any]]]:
        """Copies of every plain value in every watched namespace."""
        return [[_copy_plain(space) for space in group] for group in self._namespaces]

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
        self._namespaces = [self._namespaces[i] for i in kept]
        return [before[i] for i in kept], [after[i] for i in kept]

    def restore(self, saved: list[list[dict[str, Any]]]) -> None:
        """Put the values of :meth:`save` back.

        Containers are filled anew. A tensor comes back itself if its memory still has what it had;
        if not, a copy takes its place, because the graph of another pass may need what is there
        now. Tensors that share memory still do.
        """
        copies: dict[int, torch.UntypedStorage] = {
            leaf.memory: leaf.tensor.untyped_storage().clone()
            for leaf in _leaves(saved)
            if not leaf.unchanged()
        }
        for group, spaces in zip(self._namespaces, saved, strict=True):
            for space, values in zip(group, spaces, strict=True):
                for key in [k for k, v in space.items() if _is_state(k, v) and k not in values]:
                    del space[key]
                for key, value in values.items():
                    space[key] = _write_back(space.get(key), value, copies)


_SCALARS = (bool, int, float, complex, str, bytes, type(None), frozenset, np.generic)
_CONTAINERS = (list, dict, set, deque)
_FUNCTIONS = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType)
# What nn.Module keeps for itself is structure, not state, and who sets its mode wants it kept.
_STRUCTURE = {*vars(nn.Module()), 'training'}


class _Saved(NamedTuple):
    """A tensor, and what it held."""

    tensor: torch.Tensor
    value: torch.Tensor

    @property
    def memory(self) -> int:
        return self.tensor.untyped_storage().data_ptr()

    def unchanged(self) -> bool:
        return self.tensor.shape == self.value.shape and torch.equal(self.tensor, self.value)

    def copy(self, storage: torch.UntypedStorage) -> torch.Tensor:
        """The value, in this memory if it still has a place there."""
        if self.tensor.shape != self.value.shape:
            return self.value.clone()
        mine, tensor = self.value.new_empty(0), self.tensor
        mine.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
        return mine.copy_(self.value)


class _SavedArray(NamedTuple):
    """An array, and what it held."""

    array: np.ndarray
    value: np.ndarray

    def restored(self) -> np.ndarray:
        if self.array.shape != self.value.shape:
            return self.value.copy()
        if self.array.tobytes() != self.value.tobytes():
            self.array[...] = self.value
        return self.array


def _namespaces(module: nn.Module, seen: set[int]) -> Iterator[dict[str, Any]]:
    """The module's own attributes, buffers and parameters, and the attributes of helpers it holds
    (assigners, samplers), and of theirs.
    """
    yield module._buffers  # type: ignore[misc]
    yield module._parameters  # type: ignore[misc]
    waiting: list[Any] = [module]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or (isinstance(value, nn.Module) and value is not module):
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple, set, deque)):
            waiting += value
        elif value is module or _is_helper(value):
            yield value.__dict__
            waiting += value.__dict__.values()


def _is_helper(value: Any) -> bool:
    """Whether an object of a class of the model's, whose attributes may be state."""
    if isinstance(value, (nn.Module, torch.Tensor, *_FUNCTIONS)) or not hasattr(value, '__dict__'):
        return False
    # Loggers, locks and the like lead everywhere.
    return type(value).__module__.partition('.')[0] not in sys.stdlib_module_names


def _is_state(key: str, value: Any) -> bool:
    if key in _STRUCTURE:
        return False
    if isinstance(value, nn.Parameter):
        return not value.requires_grad
    # Other objects are kept as they are: an attribute may be None before the first call.
    return not isinstance(value, _FUNCTIONS)


def _copy_plain(space: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) for key, value in space.items() if _is_state(key, value)}


def _copy(value: Any) -> Any:
    """Containers are copied, tensors and arrays kept with a copy, other objects stay the same."""
    if isinstance(value, nn.Parameter) and value.requires_grad:
        return value
    if isinstance(value, torch.Tensor):
        strided = value.layout == torch.strided
        return _Saved(value, value.detach().clone()) if strided else value
    if isinstance(value, np.ndarray):
        return _SavedArray(value, value.copy())
    if type(value) is tuple or hasattr(value, '_make'):
        return _tuple_like(value, map(_copy, value))
    if not isinstance(value, _CONTAINERS):
        return value
    copied: Any = copy.copy(value)
    if not isinstance(copied, set):
        for key in copied if isinstance(copied, dict) else range(len(copied)):
            copied[key] = _copy(copied[key])
    return copied


def _tuple_like(value: tuple, items: Any) -> tuple:
    """A tuple of the same type, which may have named fields."""
    make = getattr(type(value), '_make', type(value))
    return make(items)


def _leaves(value: Any) -> Iterator[_Saved]:
    if isinstance(value, _Saved):
        yield value
    elif isinstance(value, (list, tuple, deque, dict)) and not isinstance(value, _SavedArray):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, _Saved) and isinstance(b, _Saved):
        return a.value.shape == b.value.shape and bool(torch.equal(a.value, b.value))
    if isinstance(a, _SavedArray) and isinstance(b, _SavedArray):
        return a.value.dtype == b.value.dtype and a.value.tobytes() == b.value.tobytes()
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple, deque)) and isinstance(b, (list, tuple, deque)):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, (*_SCALARS, set)) and isinstance(b, (*_SCALARS, set)):
        return a == b
    return a is b


def _write_back(current: Any, saved: Any, copies: dict[int, torch.UntypedStorage]) -> Any:
    if isinstance(saved, _Saved):
        if isinstance(saved.tensor, nn.Parameter):
            # Optimizers and averages know this very tensor.
            if not saved.unchanged():
                saved.tensor.data.copy_(saved.value)
            return saved.tensor
        return saved.copy(copies[saved.memory]) if saved.memory in copies else saved.tensor
    if isinstance(saved, _SavedArray):
        return saved.restored()
    if type(saved) is tuple or hasattr(saved, '_make'):
        return _tuple_like(saved, [_write_back(None, value, copies) for value in saved])
    if not isinstance(saved, _CONTAINERS):
        return saved
    target: Any = current if type(current) is type(saved) else copy.copy(saved)
    values: Any = saved
    if isinstance(saved, dict):
        old = target if target is current else {}
        values = {key: _write_back(old.get(key), value, copies) for key, value in saved.items()}
    elif not isinstance(saved, set):
        # Elements may have moved along: each gets a container of its own.
        values = [_write_back(None, value, copies) for value in saved]
    target.clear()
    put = target.extend if isinstance(saved, (list, deque)) else target.update
    put(values)
    return target
