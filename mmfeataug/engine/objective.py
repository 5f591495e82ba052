# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The objective of one iteration: losses, their gradients, and what is logged beside them."""

import logging
import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmfeataug.utils.pytorch import autocast_dtype

from .batch import Losses, weighted
from .gradients import GradientSum, all_finite
from .guards import seed_streams
from .settings import Outcome, Plan, Settings
from .tape import TermGradients
from .votes import rank

logger = logging.getLogger('mmfeataug')

CARRIER = 'feature_aug.loss'
"""Name of the term that carries the summed gradients; its value is 0."""


class Objective:
    """Losses and gradients of one iteration.

    Args:
        model: In training mode.
        settings: Of the handle.
        plan: Of the iteration.

    Attributes:
        sum: Of all gradients.
        weights: Of the views and terms that the methods made, by name.
        clean_weight: Factor of the clean loss before what missing views leave is filled in; while
            weights of views grow, it falls as they do.
        parameters: Those that learn.
        scaled: Whether fp16 asks for a factor of losses while gradients are taken.
        scale: This factor, against underflow.
        overflow: Whether gradients were not finite: the scale may have been too large.
    """

    def __init__(self, model: nn.Module, settings: Settings, plan: Plan) -> None:
        self._model, self._settings, self.plan = model, settings, plan
        self.clean_weight = 1 + plan.ramp * (settings.clean_weight - 1)
        self.scaled = _autocast_is_fp16()
        self.scale = settings.loss_scale.value if self.scaled else 1.0
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.weights: dict[str, list[float]] = {}
        self._expected = plan.ramp * _expected(settings.view_weights, plan)
        self._present = 0.0
        self._effects: dict[str, list[Tensor]] = {}
        self.sum = GradientSum(self.parameters)
        self._seeded: Counter[str] = Counter()
        self.overflow = False
        self._losses: Losses = {}
        self._acted: dict[str, bool] = {}
        self._logged: dict[str, Tensor] = {}

    def generator(self, name: str, like: Tensor) -> torch.Generator:
        """For the perturbations of an augmentation, on the device of ``like``; each rank draws its
        own.
        """
        seed = self._seed(name) + 7_919 * rank()
        return torch.Generator(like.device).manual_seed(seed)

    def shared_generator(self, name: str) -> torch.Generator:
        """For what has to be drawn alike on all ranks, on the CPU."""
        return torch.Generator().manual_seed(self._seed(name) ^ 1)

    def seed_streams(self, name: str) -> None:
        """Let the global random streams start anew, for code of an augmentation that draws from
        them: they have been put back, and would be the same in each iteration. Draws depend on
        iteration, rank and augmentation, and differ from call to call.
        """
        self._seeded[name] += 1
        seed_streams(self._seed(name) + 7_919 * rank() + 104_729 * self._seeded[name])

    def _seed(self, name: str) -> int:
        iteration = self._settings.seed * 1_000_003 + self.plan.iteration
        return iteration ^ zlib.crc32(name.encode())

    def begin(self, name: str, like: Tensor) -> None:
        """An augmentation is about to make its views. What is logged once has to be logged always:
        mmengine shows the last value it has seen.
        """
        self._acted.setdefault(name, False)
        for what in ('dropped', 'skipped'):
            self.log(f'{name}.{what}', like.new_zeros((), dtype=torch.float32))

    @property
    def fill(self) -> float:
        """Factor of what is there, for the views that are not: so the weights keep their sum."""
        whole, there = (self.clean_weight + w for w in (self._expected, self._present))
        if not self._settings.fills or math.isclose(whole, there):
            return 1.0
        return whole / there

    @property
    def outcome(self) -> Outcome:
        """What is known of this step behind it."""
        effects = {name: torch.stack(rows) for name, rows in self._effects.items()}
        return Outcome(self.clean_weight * self.fill, self.weights, effects, self._acted)

    def register_view(self, name: str, weight: float | None) -> float:
        """Take note of one more view and its weight, None if the settings have it; returns what it
        counts in this iteration.
        """
        weights = self.weights.setdefault(name, [])
        index = len(weights)
        if weight is None:
            known = self._settings.view_weights.get(name, ())
            if index >= len(known):
                raise ValueError(
                    f'view {index} has no weight: self.weight has {len(known)}, let it have one '
                    'for each view, or yield View(features, weight)'
                )
            weight = known[index]
        weights.append(weight)
        only = self.plan.only
        if only is None:
            return self.plan.ramp * weight
        chosen = (only.name, only.index) == (name, index)
        return self.plan.ramp * weight * only.factor if chosen else 0.0

    def count_view(
        self, name: str, weight: float, loss: Tensor, clean_loss: Tensor, moved: Tensor | None
    ) -> None:
        """A view is trained on.

        Args:
            name: Of its augmentation.
            weight: What it counts.
            loss, clean_loss: Unweighted.
            moved: How far it is from the clean feature, in deviations of that, if measured.
        """
        self._present += weight
        loss, clean_loss = loss.detach(), clean_loss.detach()
        self.log(f'{name}.rise', (loss - clean_loss).float())
        if moved is not None:
            row = torch.stack([t.float() for t in (moved, loss, clean_loss)])
            self._effects.setdefault(name, []).append(row)

    def add(
        self,
        key: str,
        value: Tensor,
        gradients: TermGradients,
    ) -> None:
        """One more term of the objective.

        Args:
            key: It is logged under.
            value: Weighted.
            gradients: Of ``scale`` times the value.
        """
        self.sum.add(gradients.parameters, [gradient for _, gradient in gradients.received])
        for source, gradient in gradients.received:
            source.receive(gradient)
        self._acted[key.rpartition('.loss_')[0]] = True
        self._losses[key] = value.detach()

    def drop(self, name: str, key: str, like: Tensor) -> None:
        """A view counts nothing."""
        self._losses[key] = like.new_zeros((), dtype=torch.float32)
        self._logged[f'{name}.dropped'] += 1
        logger.warning(
            'iteration %d: view %s is not finite, or reaches its place in another way than the '
            'clean batch; it was dropped',
            self.plan.iteration,
            key,
        )

    def skip(self, name: str, like: Tensor) -> None:
        """An augmentation makes no view of this batch."""
        self.begin(name, like)
        self.log(f'{name}.skipped', like.new_ones((), dtype=torch.float32))

    def log(self, name: str, value: Tensor) -> None:
        """The largest value is what is shown."""
        self._logged[name] = torch.maximum(self._logged.get(name, value), value)

    def hand_over(self, losses: Losses, total: Tensor) -> Losses:
        """The stock losses with all terms beside them, and the gradients of all hung on one.

        Args:
            losses: Of the clean pass, out of the graph.
            total: Their sum as the framework defines it.
        """
        if self.scaled:
            finite = not self.overflow and all_finite(self.sum.gradients)
            self._settings.loss_scale.update(finite)
        fill = self.fill
        self.sum.scale(fill / self.scale)
        carrier = total.new_zeros((), dtype=torch.float32)
        terms = {
            **weighted(losses, self.clean_weight * fill),
            CARRIER: carrier,
            **weighted(self._losses, fill),
            **self._logged,
        }
        if not _is_of_mmengine(self._model):
            # It may keep things, or change with time.
            state = self._settings.loss_state
            before = state.save()
            self._undo_framework(terms)
            state.save_after(before)
            state.restore(before)
        return {**terms, CARRIER: self.sum.attach_to(carrier)}

    def _undo_framework(self, terms: Losses) -> None:
        """Take out of the gradients what ``parse_losses`` is going to put in, a factor or the
        gradient of parameters of its own.

        Raises:
            ValueError: If it leaves the carrier out.
        """
        probe = torch.zeros_like(terms[CARRIER]).requires_grad_()
        total = self._model.parse_losses({**terms, CARRIER: probe})[0]  # type: ignore[operator]
        found: Sequence[Tensor | None] = (None,)
        if total.requires_grad:
            found = torch.autograd.grad(total, [probe, *self.parameters], allow_unused=True)
        factor = 0.0 if found[0] is None else float(found[0])
        if factor == 0 or not math.isfinite(factor):
            raise ValueError(
                f'{type(self._model).__name__}.parse_losses() multiplies the term {CARRIER!r}, on '
                f'which the gradients of an augmented step hang, by {factor:g}, so that nothing '
                'would be trained: let it add up every term whose name it does not know'
            )
        for i, gradient in enumerate(found[1:]):
            if gradient is not None:
                taken = self.sum.gradients[i]
                self.sum.gradients[i] = -gradient if taken is None else taken - gradient
        if factor != 1:
            self.sum.scale(1 / factor)


def _expected(weights: Mapping[str, Sequence[float]], plan: Plan) -> float:
    """What the views of an iteration are to count: all of them, or the one that stands for all,
    which may be a term instead, and then no view is missed.
    """
    if plan.only is None:
        return sum(map(sum, weights.values()))
    own = weights.get(plan.only.name, ())
    return own[plan.only.index] * plan.only.factor if plan.only.index < len(own) else 0.0


def _is_of_mmengine(model: nn.Module) -> bool:
    """Whether the model's ``parse_losses`` is the one that adds terms up and nothing else."""
    return getattr(model.parse_losses, '__module__', '').startswith('mmengine.')


def _autocast_is_fp16() -> bool:
    return any(autocast_dtype(device) == torch.float16 for device in ('cuda', 'cpu'))
