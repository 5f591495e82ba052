# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""One batch, and the stock loss of it or of some of its samples, any number of times."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from .losses import Losses


class Batch:
    """The stock loss of one batch, for any number of passes.

    Args:
        stock: ``loss`` of the model.
        inputs: Its first argument.
        args, kwargs: The others.

    Attributes:
        size: Number of samples where they can be told apart, which needs inputs and one list of
            data samples of the same length; else None.
        samples: That list; else empty.
    """

    def __init__(
        self, stock: Callable[..., Losses], inputs: Any, args: tuple, kwargs: dict[str, Any]
    ) -> None:
        self._stock, self.inputs = stock, inputs
        self._given = tree_map(own, (args, kwargs))
        self.size: int | None = None
        self.samples: list = []
        rest = [*args, *kwargs.values()]
        countable = isinstance(inputs, (list, tuple)) or (
            isinstance(inputs, Tensor) and inputs.dim()
        )
        listed = countable and len(rest) == 1 and isinstance(rest[0], (list, tuple))
        if listed and len(inputs) == len(rest[0]):
            self.size, self.samples = len(inputs), list(rest[0])

    def loss(
        self, inputs: Any, part: list[int] | None = None, samples: Sequence[Any] | None = None
    ) -> Losses:
        """The stock loss.

        Args:
            inputs: Those of the batch, or what stands in for them.
            part: Positions of the samples that ``inputs`` holds; None is all.
            samples: Other data samples, where they can be told apart.
        """
        if samples is not None:
            return self._stock(inputs, [own(sample) for sample in samples])
        # Some heads write into the data samples: every pass gets containers of its own.
        args, kwargs = tree_map(own, self._given)
        if part is not None:
            args = [pick(value, part) for value in args]
            kwargs = {key: pick(value, part) for key, value in kwargs.items()}
        return self._stock(inputs, *args, **kwargs)

    def pick(self, part: list[int] | None) -> Any:
        """The inputs of the samples at these positions."""
        return self.inputs if part is None else pick(self.inputs, part)


def own(value: Any) -> Any:
    """The value in a container of its own, out of the graph."""
    # mmengine's data elements copy their containers on detach() and share the tensors.
    return value.detach() if hasattr(value, 'detach') else value


def pick(values: Any, part: list[int]) -> Any:
    """Some samples of a tensor or a list."""
    return values[part] if isinstance(values, Tensor) else [values[i] for i in part]
