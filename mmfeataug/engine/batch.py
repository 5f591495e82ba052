# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""One batch, the stock loss of it any number of times, and loss dicts as frameworks pass them."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .checkpointing import non_reentrant

Losses = dict[str, Any]
"""Name to tensor or list of tensors; terms of the objective have ``loss`` in their name."""


class Batch:
    """The stock loss of one batch, for any number of passes.

    Args:
        model: May have activation checkpointing.
        stock: Its ``loss``.
        inputs: Its first argument.
        args, kwargs: The others.

    Attributes:
        size: Number of samples where they can be told apart, which needs inputs and one list of
            data samples of the same length; else None.
        samples: That list; else empty.
    """

    def __init__(
        self,
        model: nn.Module,
        stock: Callable[..., Losses],
        inputs: Any,
        args: tuple,
        kwargs: dict[str, Any],
    ) -> None:
        self._model, self._stock, self.inputs = model, stock, inputs
        self._given = tree_map(detach_container, (args, kwargs))
        self.size: int | None = None
        self.samples: list = []
        rest = [*args, *kwargs.values()]
        countable = isinstance(inputs, (list, tuple)) or (
            isinstance(inputs, Tensor) and inputs.dim()
        )
        listed = countable and len(rest) == 1 and isinstance(rest[0], (list, tuple))
        if listed and len(inputs) == len(rest[0]):
            self.size, self.samples = len(inputs), list(rest[0])

    def loss(self, inputs: Any, samples: Sequence[Any] | None = None) -> Losses:
        """The stock loss.

        Args:
            inputs: Those of the batch, or what stands in for them.
            samples: Other data samples, where they can be told apart.
        """
        with non_reentrant(self._model):
            if samples is not None:
                return self._stock(inputs, [detach_container(sample) for sample in samples])
            # Some heads write into the data samples: every pass gets containers of its own.
            args, kwargs = tree_map(detach_container, self._given)
            return self._stock(inputs, *args, **kwargs)


def detach_container(value: Any) -> Any:
    """The value in a container of its own, out of the graph."""
    # mmengine's data elements copy their containers on detach() and share the tensors.
    return value.detach() if hasattr(value, 'detach') else value


def detached(losses: Losses) -> Losses:
    """The values, out of the graph."""
    return {
        key: value.detach() if isinstance(value, Tensor) else [v.detach() for v in value]
        for key, value in losses.items()
    }


def weighted(losses: Losses, weight: float) -> Losses:
    """The terms of the objective times ``weight``, the rest as it is."""
    if weight == 1:
        return dict(losses)
    return {
        key: value
        if 'loss' not in key
        else value * weight
        if isinstance(value, Tensor)
        else [v * weight for v in value]
        for key, value in losses.items()
    }
