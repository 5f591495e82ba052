# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Where a model keeps what it knows: the containers and objects that its attributes lead to."""

import enum
import logging
import random
import sys
from abc import ABC, abstractmethod
from collections import OrderedDict, UserDict, UserList, deque
from collections.abc import Collection, Iterator
from functools import partial
from operator import is_
from queue import Queue
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any
from weakref import ProxyTypes

import numpy as np
import torch
from torch import nn

FUNCTIONS = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType)
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
# What nn.Module keeps for itself is structure, not state, and who sets a mode wants it kept.
_STRUCTURE = {*vars(nn.Module()), 'training', 'track_running_stats'}
_HOLDERS = (SimpleNamespace, UserDict, UserList, Queue)
"""Classes of the standard library whose objects hold what they are given; others (loggers, locks)
lead everywhere."""
_PACKAGE = __name__.partition('.')[0]
_ABSENT = object()


class Place(ABC):
    """One container or object whose items may change.

    Args:
        target: It, or its ``__dict__``; read at once.

    Attributes:
        content: Its items when it was last read; replaced, never changed.
        leaves: Tensors, arrays and random generators among them, also in tuples.
        inner: Containers and objects among them.
    """

    def __init__(self, target: Any) -> None:
        self.target = target
        self.content: list = []
        self.leaves: list = []
        self.inner: list = []
        self.refresh()

    @abstractmethod
    def read(self) -> list:
        """The items now."""

    @abstractmethod
    def write(self, content: list) -> None:
        """Put items of an earlier :meth:`read` back."""

    def refresh(self) -> bool:
        """Read it; whether other containers are in there than before."""
        content = self.read()
        if same(content, self.content):
            return False
        self.content, inner = content, self.inner
        self.leaves, self.inner = [], []
        waiting = self.values()
        while waiting:
            value = waiting.pop()
            if type(value) in ProxyTypes:
                continue
            if isinstance(value, (torch.Tensor, np.ndarray, *GENERATORS)):
                if not isinstance(value, random.SystemRandom):
                    self.leaves.append(value)
            elif isinstance(value, tuple):
                waiting += value
            elif isinstance(value, MethodType):
                waiting.append(value.__self__)
            elif isinstance(value, partial):
                waiting += [*value.args, *value.keywords.values()]
            elif isinstance(value, (dict, list, set, deque, nn.Module)) or _is_helper(value):
                self.inner.append(value)
        return not same(inner, self.inner)

    def values(self) -> list:
        """What of :attr:`content` may lead further."""
        return list(self.content)


class Namespace(Place):
    """Attributes of a module or a helper; functions among them stay as they are, because whoever
    patches a method takes it back himself.
    """

    target: dict[str, Any]

    def read(self) -> list:
        """Names, then values."""
        return [*self.target, *self.target.values()]

    def write(self, content: list) -> None:
        """See :class:`Place`."""
        half = len(content) // 2
        wanted = dict(zip(content[:half], content[half:], strict=True))
        space = self.target
        for key in [*space]:
            if key not in wanted and key not in _STRUCTURE and not _is_function(space[key]):
                del space[key]
        for key, value in wanted.items():
            if key in _STRUCTURE or _is_function(value) or _is_function(space.get(key)):
                continue
            space[key] = value

    def values(self) -> list:
        """Without structure."""
        return [v for k, v in self.target.items() if k not in _STRUCTURE]


class DictPlace(Place):
    """Any other dict, with its order."""

    def read(self) -> list:
        """Keys, then values."""
        # As they are: configs build objects when they are asked.
        kind: Any = OrderedDict if isinstance(self.target, OrderedDict) else dict
        return [*kind.keys(self.target), *kind.values(self.target)]

    def write(self, content: list) -> None:
        """See :class:`Place`."""
        half = len(content) // 2
        kind: Any = OrderedDict if isinstance(self.target, OrderedDict) else dict
        kind.clear(self.target)
        kind.update(self.target, zip(content[:half], content[half:], strict=True))


class ListPlace(Place):
    """A list, deque or set."""

    def read(self) -> list:
        """See :class:`Place`."""
        return list(self.target)

    def write(self, content: list) -> None:
        """See :class:`Place`."""
        self.target.clear()
        put = self.target.update if isinstance(self.target, set) else self.target.extend
        put(content)


class SlotsPlace(Place):
    """Attributes that a class names in ``__slots__``."""

    def __init__(self, target: Any) -> None:
        self.names = _slots(target)
        super().__init__(target)

    def read(self) -> list:
        """Values of the slots."""
        return [_slot(self.target, name) for name in self.names]

    def write(self, content: list) -> None:
        """See :class:`Place`."""
        for name, value in zip(self.names, content, strict=True):
            if value is not _ABSENT:
                object.__setattr__(self.target, name, value)
            elif _slot(self.target, name) is not _ABSENT:
                object.__delattr__(self.target, name)


def _slot(value: Any, name: str) -> Any:
    try:
        return object.__getattribute__(value, name)
    except AttributeError:
        return _ABSENT


def same(a: list, b: list) -> bool:
    """Whether two lists hold the very same objects."""
    return len(a) == len(b) and all(map(is_, a, b))


def reached(
    roots: list[Place], known: dict[int, tuple[Any, list[Place]]], ends: Collection[int]
) -> list[Place]:
    """All places that some lead to, each once, with them.

    Args:
        roots: Read; what they hold is followed as it was when they were.
        ends: Identities of the modules whose places are among ``roots``.
        known: Places of objects, by their identity; kept up to date. Only new ones are read.
    """
    found: list[Place] = []
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        place = waiting.pop()
        found.append(place)
        for value in place.inner:
            if id(value) in seen or id(value) in ends:
                continue
            seen.add(id(value))
            if id(value) not in known:
                # With the object, whose identity is another's when it is gone.
                known[id(value)] = value, list(_places_of(value))
            waiting += known[id(value)][1]
    for key in known.keys() - seen:
        del known[key]
    return found


def spaces_of(module: nn.Module) -> Iterator[dict[str, Any]]:
    """Where a module keeps parameters, buffers, parts and attributes of its own."""
    yield module._parameters  # type: ignore[misc]
    yield module._buffers  # type: ignore[misc]
    yield module._modules  # type: ignore[misc]
    yield module.__dict__


def _places_of(value: Any) -> Iterator[Place]:
    if isinstance(value, nn.Module):
        # One that the model does not know as its part, as teachers are hidden from optimizers.
        yield from map(Namespace, spaces_of(value))
        return
    if isinstance(value, dict):
        yield DictPlace(value)
    elif isinstance(value, (list, set, deque)):
        yield ListPlace(value)
    if (space := _space(value)) is not None:
        yield Namespace(space)
    if _slots(value):
        yield SlotsPlace(value)


def _is_function(value: Any) -> bool:
    # Not by isinstance(): a proxy of what is gone answers with an error.
    return issubclass(type(value), FUNCTIONS)


def _is_helper(value: Any) -> bool:
    """Whether an object of a class of the model's, whose attributes may be state."""
    if isinstance(value, (enum.Enum, logging.Logger, *FUNCTIONS)):
        return False
    cls = type(value)
    if _space(value) is None and not _slots(value):
        return False
    # What is ours knows its own state.
    package = cls.__module__.partition('.')[0]
    if package in sys.stdlib_module_names or cls.__module__.startswith('torch.distributed'):
        return isinstance(value, _HOLDERS)
    return not any(c.__module__.partition('.')[0] == _PACKAGE for c in cls.__mro__)


def _space(value: Any) -> dict[str, Any] | None:
    """Its ``__dict__``, past what its class makes of attributes."""
    try:
        return object.__getattribute__(value, '__dict__')
    except AttributeError:
        return None


def _slots(value: Any) -> list[str]:
    names: list[str] = []
    for cls in type(value).__mro__:
        own = cls.__dict__.get('__slots__', ())
        for name in (own,) if isinstance(own, str) else own:
            private = name.startswith('__') and not name.endswith('__')
            names.append(f'_{cls.__name__.lstrip("_")}{name}' if private else name)
    return [name for name in names if name not in ('__dict__', '__weakref__')]
