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
        view_weights: Those of the views, by the name of their augmentation.
        fills: Whether the weights of each step keep their sum: what views that a step lacks would
            count goes to the clean loss and the other views, in proportion.
        strict: Raise where a replay is not exact.
        seed: Of the methods' random draws.
        loss_state: What losses keep between calls.
        loss_scale: Against underflow of fp16 gradients.
        teacher: Averaged weights, by the names of ``model.state_dict()``.
        backward_checked: Whether the first step has shown that the model's backward pass leaves
            ``.grad`` of parameters alone.
    """

    clean_weight: float
    view_weights: dict[str, tuple[float, ...]]
    fills: bool
    strict: bool
    seed: int
    loss_state: LossState
    loss_scale: LossScale = field(default_factory=LossScale)
    teacher: dict[str, Tensor] | None = None
    backward_checked: bool = False


@dataclass(frozen=True)
class Plan:
    """What one iteration does.

    Attributes:
        iteration: Its number, for the methods' random draws.
        enabled: False runs the stock loss alone.
        views: False leaves out all that runs additional passes; methods that change the clean pass
            itself act.
        ramp: Factor of all view weights, for warm-up; 0 is as without ``views``.
        only: The one view to train on; None is all of them.
        measure: Whether effects of views are measured.
        update: Number of the optimizer step, to which several iterations may belong; None: each is
            one of its own.
    """

    iteration: int = 0
    enabled: bool = True
    views: bool = True
    ramp: float = 1.0
    only: Choice | None = None
    measure: bool = False
    update: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What one call did.

    Attributes:
        clean_weight: Factor of the clean loss.
        weights: Of all views that it could have trained on, by name.
        effects: By name ``(n, 3)``, for each view that was trained on: how far it is from the clean
            feature, in deviations of that; its loss; the clean loss. On the device of the losses;
            empty unless the plan wanted them measured.
        acted: By name, of those whose turn it was: whether a view or term of theirs was trained on.
    """

    clean_weight: float = 1.0
    weights: dict[str, list[float]] = field(default_factory=dict)
    effects: dict[str, Tensor] = field(default_factory=dict)
    acted: dict[str, bool] = field(default_factory=dict)
