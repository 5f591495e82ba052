# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What processes agree on: a pass that one of them skips would leave the others waiting."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed


def is_distributed() -> bool:
    """Whether there are several processes to agree with."""
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Number of this process among all."""
    return distributed.get_rank() if is_distributed() else 0


def on_all_ranks(flags: Sequence[bool], like: Tensor) -> list[bool]:
    """Whether each flag holds on every process, by one collective.

    Args:
        flags: As many on every process.
        like: On the device of the vote.
    """
    if not is_distributed():
        return list(flags)
    return on_all_ranks_packed(torch.tensor(flags, device=like.device))


def on_any_rank(flags: Sequence[bool], like: Tensor) -> list[bool]:
    """Whether each flag holds on some process, by one collective."""
    return [not flag for flag in on_all_ranks([not flag for flag in flags], like)]


def on_all_ranks_packed(flags: Tensor) -> list[bool]:
    """As :func:`on_all_ranks`, of flags that are on the device: one collective and one
    synchronisation with the host.

    Args:
        flags: ``(n,)``, boolean.
    """
    if is_distributed():
        flags = flags.int()
        distributed.all_reduce(flags, distributed.ReduceOp.MIN)
    return [bool(v) for v in flags.tolist()]


def average_over_ranks(value: Tensor) -> Tensor:
    """Mean of a tensor of the same shape on every process."""
    if not is_distributed():
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value / distributed.get_world_size()
