# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Base class of methods that compare copies of the batch."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .augmentation import Augmentation


class CopyPass(Protocol):
    """Runs copies of the batch for a :class:`BatchAugmentation`.

    Attributes:
        model: In training mode.
        samples: Data samples of the batch; empty where they cannot be told apart.
        counts: Number of features at each place, in the order of the places.
        update_count: Number of optimizer steps with augmented iterations before this one.
        teacher: Averaged weights, by the names of ``model.state_dict()``; None without a teacher.
        shared: Source of draws that decide how many passes there are: alike on every rank.
    """

    model: nn.Module
    samples: list[Any]
    counts: list[int]
    update_count: int
    teacher: dict[str, Tensor] | None
    shared: torch.Generator

    def __call__(
        self,
        images: Tensor,
        *,
        loss: bool = False,
        samples: Sequence[Any] | None = None,
        weights: dict[str, Tensor] | None = None,
        bn: str | None = None,
    ) -> Any:
        """A pass with the random draws of the clean one.

        Args:
            images: In place of the batch's.
            loss: Run to the end; else no further than to the last place.
            samples: Data samples in place of the batch's.
            weights: To compute with, by the names of ``model.state_dict()``.
            bn: How batch norms treat the pass; None: as the augmentation says, but ``'eval'`` with
                other weights.

        Returns:
            The features at the places, fp32, in the autograd graph, and with ``loss`` the tuple
            ``(features, total training loss)``.
        """


class BatchAugmentation(Augmentation):
    """Base of methods that compare the batch with copies of it.

    Args:
        at: One path or several, in any order.
        side, bn: See :class:`Augmentation`; ``bn`` is for passes over copies.
        hold: Modules that return for a copy what they returned for the clean batch, such as
            ``'rpn_head'``: with the same proposals, features of RoIs can be compared.
        online: Whether clean features take part in the gradient of the terms. The clean graph is
            then kept until the terms are done.

    Attributes:
        needs_teacher: Whether it computes with averaged weights of the model.
        one_place: Whether ``at`` is one path.
    """

    needs_teacher = one_place = False

    def __init__(
        self,
        *,
        at: str | Sequence[str],
        side: str = 'output',
        bn: str = 'frozen',
        hold: str | Sequence[str] = (),
        online: bool = False,
    ) -> None:
        paths = (at,) if isinstance(at, str) else tuple(at)
        super().__init__(at=paths[0] if paths else '', side=side, bn=bn)
        if 'inputs' in paths:
            raise ValueError(
                f"at='inputs': {type(self).__name__} compares features; name a module, such as "
                "'backbone'"
            )
        self._paths, self.online = paths, online
        self.hold = (hold,) if isinstance(hold, str) else tuple(hold)

    @property
    def paths(self) -> tuple[str, ...]:
        """In the order of ``at``."""
        return self._paths

    @property
    def starts_at(self) -> tuple[str, str]:
        """A copy runs from the image on."""
        return 'inputs', 'output'

    @abstractmethod
    def losses(
        self,
        inputs: Tensor,
        clean: list[Tensor],
        network: CopyPass,
        generator: torch.Generator,
    ) -> Iterator[Tensor]:
        """Make terms of the objective: scalars in the autograd graph, weighted.

        Args:
            inputs: The images, preprocessed.
            clean: Features of the clean pass at the taps, fp32, in the order of ``at``; several a
                tap if it yields a tuple or is called several times.
            network: Makes passes over other images.
            generator: As in :class:`Tail`.
        """
