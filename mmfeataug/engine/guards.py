# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What an extra pass must not disturb: random streams, batch norms, dropout, weights."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .auxiliary import norm_pairs

BN_POLICIES = ('shared', 'frozen', 'eval', 'separate')


def no_autocast(like: torch.Tensor) -> AbstractContextManager:
    """A context in which autocast is off on the device of ``like``; backward passes belong outside
    of it. A device that has no autocast in this version of PyTorch needs none.
    """
    try:
        return torch.autocast(like.device.type, enabled=False)
    except RuntimeError:
        return nullcontext()


def wide(value: torch.Tensor) -> torch.Tensor:
    """The tensor in float32, or what is wider."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def seed_streams(seed: int) -> None:
    """Start the random streams that :class:`RandomState` puts back anew."""
    # torch.manual_seed() takes a stack trace where CUDA is not in use, milliseconds.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


class RandomState:
    """The random streams of PyTorch (CPU and every visible CUDA device), NumPy and Python at the
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


def is_dropout(module: nn.Module) -> bool:
    """Whether a module drops at random what passes it, in training mode: PyTorch's dropout, every
    ``DropPath`` and ``DropBlock``, and attention, some of which drops by a function.
    """
    name = type(module).__name__
    return (
        isinstance(module, nn.modules.dropout._DropoutNd)
        or 'Drop' in name
        or name.endswith(('Attention', 'MSA'))
    )


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Within this context nothing is dropped."""
    modules = [m for m in model.modules() if m.training and is_dropout(m)]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module in modules:
            module.training = True


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
