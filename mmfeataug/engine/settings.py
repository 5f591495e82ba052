# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What the handle tells each step."""

from dataclasses import dataclass, field

from torch import Tensor

from .gradients import LossScale
from .loss_state import LossState


@dataclass(frozen=True)
class Choice:
    """One view among all.

    Attributes:
        name: Of the augmentation.
        index: Of the view.
        factor: Of its weight.
    """

    name: str
    index: int
    factor: float = 1.0


@dataclass
class Settings:
    """What stays the same from step to step, and what a step leaves for the next one.

    Attributes:
        clean_weight: Factor of the clean loss while views are active.
        strict: Raise where a replay is not exact.
        seed: Of the methods' random draws.
        loss_state: What losses keep between calls.
        loss_scale: Against underflow of fp16 gradients.
        teacher: Averaged weights, by the names of ``model.state_dict()``.
        sums_losses: Whether the model's ``parse_losses`` adds terms up and nothing else; None until
            the first step has shown it.
    """

    clean_weight: float
    strict: bool
    seed: int
    loss_state: LossState
    loss_scale: LossScale = field(default_factory=LossScale)
    teacher: dict[str, Tensor] | None = None
    sums_losses: bool | None = None


@dataclass(frozen=True)
class Plan:
    """What one iteration does.

    Attributes:
        iteration: Its number, for the methods' random draws.
        enabled: False runs the stock loss alone.
        ramp: Factor of all view weights, for warm-up; 0 runs the stock loss alone.
        only: The one view to train on; None is all of them.
    """

    iteration: int = 0
    enabled: bool = True
    ramp: float = 1.0
    only: Choice | None = None
