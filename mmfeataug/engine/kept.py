# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Single things that losses change: tensors, and states of random generators."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .places import same


@dataclass
class Kept:
    """A tensor, and what it held: a copy, or where that would be too much, what tells a change."""

    tensor: Tensor
    value: Tensor | None
    version: int
    fingerprint: Tensor | None = None

    @property
    def memory(self) -> int:
        """Where it is; views of one tensor have the same."""
        return self.tensor.untyped_storage().data_ptr()

    def copy(self, memories: dict[int, torch.UntypedStorage]) -> Tensor:
        """What it held, in a copy of its memory, if it still has a place there.

        Args:
            memories: Copies that are made already, by what they are of; others are added.
        """
        tensor, value = self.tensor, self.value
        assert value is not None
        if tensor.shape != value.shape or not is_dense(tensor):
            return value.clone()
        if self.memory not in memories:
            memories[self.memory] = tensor.untyped_storage().clone()
        mine = value.new_empty(0)
        mine.set_(memories[self.memory], tensor.storage_offset(), tensor.shape, tensor.stride())
        return mine.copy_(value)


def is_dense(tensor: Tensor) -> bool:
    """Whether no two elements share memory, as in expanded tensors."""
    return all(s or n < 2 for s, n in zip(tensor.stride(), tensor.shape, strict=True))


def fingerprint_of(tensor: Tensor) -> Tensor:
    """Its norm, and a sum that depends on the order of its elements."""
    held = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
    flat = held.reshape(-1).float()
    rows = flat[: len(flat) // 256 * 256].view(-1, 256)
    across, down = (torch.arange(n, device=flat.device).float().cos() for n in (256, len(rows)))
    return torch.stack([flat.norm(), (rows @ across) @ down])


def substitute(values: Any, copies: dict[int, Tensor]) -> Any:
    """Items with copies in the place of tensors, also in tuples.

    Args:
        values: A list, or a tuple in one.
        copies: By the identity of the tensor.
    """
    found = [
        substitute(value, copies)
        if issubclass(type(value), tuple)
        else copies.get(id(value), value)
        for value in values
    ]
    if not isinstance(values, tuple):
        return found
    if same(list(values), found):
        return values
    return getattr(type(values), '_make', type(values))(found)


def get_state(generator: Any) -> Any:
    """Of any of the kinds of random generators."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state() if hasattr(generator, 'get_state') else generator.getstate()


def set_state(generator: Any, state: Any) -> None:
    """Put what :func:`get_state` gave back."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, (torch.Generator, np.random.RandomState)):
        generator.set_state(state)
    else:
        generator.setstate(state)
