# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What a method is: something that turns a feature and its gradient into views."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .guards import BN_POLICIES


@dataclass
class View:
    """A variant of the features at a tap, to be trained on.

    Attributes:
        features: One tensor for each recorded feature, same shapes, fp32, detached.
        weight: Factor of this view's loss in the objective.
    """

    features: list[Tensor]
    weight: float


@dataclass
class Tail:
    """The network behind a tap, as a function of the features there.

    ``tail(features)`` returns ``(loss, gradients)``: the unweighted total training loss (a scalar)
    and its gradient toward each feature. Parameters get no gradient and batch norms keep their
    running statistics.

    Attributes:
        generator: Source of a method's random draws: depends on seed and iteration only, so that a
            resumed run and every rank draw alike.
    """

    evaluate: Callable[[Sequence[Tensor]], tuple[Tensor, list[Tensor]]]
    generator: torch.Generator

    def __call__(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients at these features."""
        return self.evaluate(features)


class FeatureAugmentation(ABC):
    """Base of all methods that make views of a feature.

    Args:
        at: Where: a dotted path of ``model.named_modules()``, or ``'inputs'``.
        side: ``'output'`` or ``'input'`` of that module.
        bn: How batch norms behind the tap treat views: ``'shared'`` (statistics updated by views
            too), ``'frozen'`` (batch statistics, running ones untouched) or ``'eval'`` (running
            statistics).
        live_prefix: Let view losses train layers before the tap through skips around it. Needs
            ``engine='graph'``.
    """

    def __init__(
        self, *, at: str, side: str = 'output', bn: str = 'shared', live_prefix: bool = False
    ) -> None:
        if not isinstance(at, str) or not at:
            raise TypeError(f"at={at!r}: give a module path such as 'backbone.layer2', or 'inputs'")
        if bn not in BN_POLICIES:
            raise ValueError(f'bn={bn!r}: choose one of {", ".join(BN_POLICIES)}')
        self.at, self.side, self.bn, self.live_prefix = at, side, bn, live_prefix

    @property
    def name(self) -> str:
        """Prefix of what is logged."""
        return type(self).__name__.lower()

    @property
    @abstractmethod
    def active(self) -> bool:
        """False if the settings make every view vanish; then no extra pass is run at all."""

    @abstractmethod
    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """Make views.

        Args:
            features: Detached clean features at the tap, fp32; not to be changed in place. Several
                if the module yields a tuple or is called several times in a pass.
            gradients: Gradient of the clean training loss toward each of them.
            tail: Evaluates the loss from the tap, for attacks of several steps.
        """
