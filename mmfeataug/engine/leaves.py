# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Tensors in nested values: tuples, lists, dicts, dataclasses, and data elements of mmengine."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor


def flatten(value: Any) -> list[Any]:
    """The leaves of a nested value: tensors, and whatever is no container."""
    leaves: list[Any] = []

    def note(leaf: Any) -> Any:
        leaves.append(leaf)
        return leaf

    map_leaves(value, note)
    return leaves


def rebuild(value: Any, leaves: Sequence[Any]) -> Any:
    """A nested value of the same structure with other leaves, in the order of :func:`flatten`."""
    rest = iter(leaves)
    return map_leaves(value, lambda _: next(rest))


def map_leaves(value: Any, function: Callable[[Any], Any]) -> Any:
    """The nested value in containers of its own, with ``function`` of each leaf."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        items = {key: map_leaves(inner, function) for key, inner in value.items()}
        if type(value) is dict:
            return items
        new: Any = copy.copy(value)
        for key, inner in items.items():
            new[key] = inner
        return new
    if isinstance(value, tuple):
        inner = [map_leaves(v, function) for v in value]
        make = getattr(type(value), '_make', tuple)
        return make(inner)
    if isinstance(value, list):
        inner = [map_leaves(v, function) for v in value]
        if type(value) is list:
            return inner
        new = copy.copy(value)
        new[:] = inner
        return new
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        new = copy.copy(value)
        for field in dataclasses.fields(value):
            changed = map_leaves(getattr(value, field.name), function)
            object.__setattr__(new, field.name, changed)
        return new
    # Duck-typed on purpose: mmengine's data elements return a copy of the container.
    if hasattr(value, 'detach') and hasattr(value, 'set_data') and hasattr(value, 'items'):
        new = value.detach()
        new.set_data({key: map_leaves(inner, function) for key, inner in value.items()})
        return new
    return function(value)
