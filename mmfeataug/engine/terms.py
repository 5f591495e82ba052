# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What one iteration gathers: gradients, losses of views, and what is logged beside them."""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .gradients import GradientSum, LossScale, all_finite
from .loss_state import LossState
from .losses import Losses, carry, weighted

logger = logging.getLogger('mmfeataug')


@dataclass(frozen=True)
class Choice:
    """One view among all.

    Attributes:
        name: Of the augmentation.
        index: Of the view.
        factor: Of its weight.
        samples: Number of samples of the batch to train it on, where the tap allows that; None is
            all. Methods see the features of all either way.
    """

    name: str
    index: int
    factor: float = 1.0
    samples: int | None = None


@dataclass
class Settings:
    """What stays the same from step to step, and what a step leaves for the next one."""

    clean_weight: float
    graph: bool
    strict: bool
    seed: int
    loss_scale: LossScale = field(default_factory=LossScale)
    loss_state: LossState | None = None
    teacher: dict[str, Tensor] | None = None


class Terms:
    """Losses and gradients of one iteration.

    Args:
        model: In training mode.
        settings: Of the handle.
        ramp: Factor of all view weights.
        iteration: For the methods' random draws.
        only: The one view to train on; None is all of them.

    Attributes:
        weights: Of the views that the methods made, by name.
        parts: Numbers of samples, short of all, that these can be trained on, by name.
        parameters: Those that learn.
        scaled: Whether fp16 asks for a factor of losses while gradients are taken.
        scale: This factor, against underflow.
        graph: Whether losses keep their graph; else gradients are summed at once.
        overflow: Whether gradients were not finite: the scale may have been too large.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        ramp: float,
        iteration: int,
        only: Choice | None = None,
    ) -> None:
        self._settings, self._ramp, self._iteration, self._only = settings, ramp, iteration, only
        self.graph = settings.graph
        self.scaled = _autocast_is_fp16()
        self.scale = settings.loss_scale.value if self.scaled else 1.0
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.weights: dict[str, list[float]] = {}
        self.parts: dict[str, range] = {}
        self._sum = GradientSum(self.parameters)
        self.overflow = False
        self._losses: Losses = {}
        self._logged: dict[str, Tensor] = {}

    @property
    def samples(self) -> int | None:
        """How many of the batch views are trained on; None is all."""
        return self._only.samples if self._only else None

    @property
    def seed(self) -> int:
        """Of this iteration."""
        return self._settings.seed * 1_000_003 + self._iteration

    def generator(self, name: str, like: Tensor) -> torch.Generator:
        """For the draws of an augmentation, on the device of ``like``."""
        return torch.Generator(like.device).manual_seed(self.seed ^ zlib.crc32(name.encode()))

    def wants(self, name: str) -> bool:
        """Whether any view of an augmentation may be trained on."""
        return self._only is None or self._only.name == name

    def begin(self, name: str, like: Tensor) -> None:
        """An augmentation is about to make its views."""
        self.log(f'{name}.dropped', like.new_zeros(()))

    def offer(self, name: str, weight: float) -> float:
        """Take note of one more view and its weight; returns what it counts in this iteration."""
        weights = self.weights.setdefault(name, [])
        index = len(weights)
        weights.append(weight)
        if self._only is None:
            return self._ramp * weight
        chosen = (self._only.name, self._only.index) == (name, index)
        return self._ramp * weight * self._only.factor if chosen else 0.0

    def fit(self, gradients: Sequence[Tensor | None]) -> bool:
        """Whether they are finite; see ``overflow``."""
        finite = all_finite(gradients)
        self.overflow |= not finite
        return finite

    def add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Of what is not kept in the graph, one for each parameter."""
        self._sum.add(gradients)

    def add(
        self, key: str, value: Tensor, weight: float, gradients: Sequence[Tensor | None]
    ) -> None:
        """One more term of the objective.

        Args:
            key: It is logged under.
            value: In the graph.
            weight: Its factor.
            gradients: Of ``weight * scale * value``; not looked at where the graph is kept.
        """
        if not self.graph:
            self.add_gradients(gradients)
            value = value.detach()
        self._losses[key] = weight * value

    def drop(self, name: str, key: str, like: Tensor) -> None:
        """A view is not finite: it counts nothing."""
        self._losses[key] = like.new_zeros(())
        self._logged[f'{name}.dropped'] += 1
        logger.warning('iteration %d: view %s is not finite and was dropped', self._iteration, key)

    def log(self, name: str, value: Tensor) -> None:
        """The largest value is what is shown."""
        self._logged[name] = torch.maximum(self._logged.get(name, value), value)

    def hand_over(self, losses: Losses) -> Losses:
        """The stock losses with all terms beside them, and the gradients of all hung on them."""
        terms = weighted(losses, self._settings.clean_weight)
        if self.scaled:
            finite = not self.overflow and (self.graph or all_finite(self._sum.gradients))
            self._settings.loss_scale.update(finite)
        if not self.graph:
            if self.scale != 1:
                self._sum.scale(1 / self.scale)
            carry(terms, self._sum)
        return {**terms, **self._losses, **self._logged}


def _autocast_is_fp16() -> bool:
    return any(
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
        for device in ('cuda', 'cpu')
    )
