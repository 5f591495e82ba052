# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What an extra pass must not disturb: random streams, batch-norm statistics, state kept by
losses.
"""

import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .auxiliary import norm_pairs

BN_POLICIES = ('shared', 'frozen', 'eval', 'separate')


def no_autocast(like: torch.Tensor) -> torch.autocast:
    """A context in which autocast is off on the device of ``like``; backward passes belong outside
    of it.
    """
    return torch.autocast(like.device.type, enabled=False)


class RandomState:
    """The random streams of PyTorch (CPU and every CUDA device in use), NumPy and Python at the
    time of creation.

    mmdet's samplers draw from PyTorch and from NumPy, so a replay with other streams would compare
    losses of other RoIs.
    """

    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._numpy = np.random.get_state()
        self._python = random.getstate()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RandomState):
            return NotImplemented
        mine, theirs = self._key(), other._key()
        return mine[1:] == theirs[1:] and all(
            torch.equal(a, b) for a, b in zip(mine[0], theirs[0], strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def _key(self) -> tuple[list[torch.Tensor], Any, Any]:
        _, keys, *rest = self._numpy
        numpy = (bytes(memoryview(keys)), *rest)  # type: ignore[arg-type]
        return [self._torch, *(self._cuda or ())], numpy, self._python

    def restore(self) -> None:
        """Set all streams back to the state at creation; may be called any number of times."""
        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        np.random.set_state(self._numpy)
        random.setstate(self._python)


def everywhere(flag: bool, like: torch.Tensor) -> bool:
    """Whether ``flag`` holds on every process: a pass that one of them skips leaves the others
    waiting.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return flag
    vote = torch.tensor(int(flag), device=like.device)
    distributed.all_reduce(vote, distributed.ReduceOp.MIN)
    return bool(vote)


def anywhere(flag: bool, like: torch.Tensor) -> bool:
    """Whether ``flag`` holds on any process."""
    return not everywhere(not flag, like)


def average_over_processes(value: torch.Tensor) -> torch.Tensor:
    """Mean of a tensor of the same shape on every process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value / distributed.get_world_size()


class RunningStatistics:
    """The running statistics of batch norms at the time of creation."""

    def __init__(self, model: nn.Module) -> None:
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
        self._buffers = [b for m in norms for b in m.buffers(recurse=False)]
        self._saved = [b.clone() for b in self._buffers]

    def restore(self) -> None:
        """Put them back."""
        for buffer, saved in zip(self._buffers, self._saved, strict=True):
            # Past the version counter: graphs of other passes have saved these buffers.
            buffer.data.copy_(saved)

    @property
    def current(self) -> list[torch.Tensor]:
        """What they are now, those in floating point."""
        return [b for b in self._buffers if b.is_floating_point()]


class BatchNormGuard:
    """Set how batch norms in training mode behave, and put them back on exit.

    - ``shared``: as they are; running statistics are updated.
    - ``frozen``: normalise with the batch's statistics, leave the running ones untouched.
    - ``eval``: normalise with the running statistics, which stay untouched.
    - ``separate``: as ``shared``, with the second set of weights and statistics.

    Layers that the model itself keeps in eval mode (``norm_eval=True``) are left alone.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = [
            m
            for m in model.modules()
            if isinstance(m, _BatchNorm) and m.training and m.track_running_stats
        ]
        self._pairs = [
            (first, second, first._parameters, first._buffers)
            for first, second in norm_pairs(model)
        ]

    def apply(self, policy: str, separate: bool = False) -> None:
        """Switch to a policy; allowed any number of times between entry and exit.

        Args:
            policy: See the class.
            separate: Whether layers that have a second set of weights and statistics use that.
                ``'separate'`` means so, too.
        """
        separate = separate or policy == 'separate'
        for layer in self._layers:
            layer.training = policy != 'eval'
            layer.track_running_stats = policy != 'frozen'
        for first, second, parameters, buffers in self._pairs:
            first._parameters = second._parameters if separate else parameters
            first._buffers = second._buffers if separate else buffers

    def __enter__(self) -> 'BatchNormGuard':
        return self

    def __exit__(self, *_: object) -> None:
        self.apply('shared')


@contextmanager
def other_weights(model: nn.Module, weights: dict[str, torch.Tensor]) -> Iterator[None]:
    """Within this context the model computes with other parameters and buffers.

    Args:
        model: Its own tensors are put back afterwards, untouched.
        weights: By the names of ``model.state_dict()``; what is not named stays.
    """
    undo: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for path, module in model.named_modules():
            for space in (module._parameters, module._buffers):
                for name, own in list(space.items()):
                    other = weights.get(f'{path}.{name}'.lstrip('.'))
                    if own is not None and other is not None:
                        undo.append((space, name, own))  # type: ignore[arg-type]
                        space[name] = other  # type: ignore[assignment]
        yield
    finally:
        for space, name, own in undo:
            space[name] = own


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
    copies: dict[str, Any] = {}
    for key, value in space.items():
        if not _is_state(key, value):
            continue
        if isinstance(value, torch.Tensor):
            copies[key] = value.detach().clone()
        else:
            copies[key] = value.copy() if isinstance(value, _CONTAINERS) else value
    return copies


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
    if not isinstance(saved, _CONTAINERS):
        return saved
    if type(current) is not type(saved):
        return saved.copy()
    target: Any = current
    target.clear()
    put = target.extend if isinstance(saved, (list, deque)) else target.update
    put(saved)
    return target
