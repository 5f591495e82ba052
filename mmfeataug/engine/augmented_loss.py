# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What stands in for ``model.loss`` while augmentations are attached."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from inspect import signature
from numbers import Real
from typing import Any

import torch
from torch import nn

from mmfeataug.utils.settings import Fix, SettingError

from .augmentation import Augmentation, FeatureAugmentation
from .auxiliary import OWN_MODULES
from .batch import Batch, Losses
from .batch_augmentation import BatchAugmentation
from .checks import augmentation_faults, model_faults, raise_together
from .copies import CopyTaps
from .layers import FeatureTransform
from .loss_state import LossState
from .settings import Outcome, Plan, Settings
from .step import run_step
from .tap import Member, Tap, not_called, patched
from .weights import formula, share_weights


class AugmentedLoss:
    """Takes the place of ``model.loss`` while attached, and is the handle to take it off again.

    A call runs the stock loss once on the clean batch, then once more from each tap for every view,
    and returns the stock loss dict with one more loss per view. See ``docs/design.md`` for the
    order of an iteration.

    Args:
        model: A model with ``loss(inputs, data_samples)`` and ``parse_losses``, as mmengine's
            ``BaseModel``.
        augmentations: The methods, each with its place.
        clean_weight: Factor of the clean loss while views are active; positive. None: what the
            weights of views leave of 1, in each step, see
            :func:`mmfeataug.engine.weights.share_weights`.
        strict: Raise where a replay is not exact instead of falling back to a full re-run.
        seed: Of the methods' random draws.
        outside: Namespaces beside the model that its loss writes into.

    Attributes:
        augmentations: All of them, by the names they are logged under.
        taps: Where views are made, each with its augmentations and what is known about it.
        copy_taps: Of the augmentations that compare copies of the batch.
        layers: Of those that change features in place, with their taps.
        plan: Of the next call. Each call counts its iteration up; whoever knows better, such as
            the hook of a resumed run, replaces it.
        step_count: Number of calls with views or terms; in a handle of layers alone, of calls in
            which these acted.
        update_count: Number of optimizer steps with such calls, as far as the plan tells them.
        was_active: Whether anything acted in the last call.
        outcome: What the last call did.
        clean_weights: Sum of the factors of the clean loss over all calls that acted.

    Raises:
        ValueError, TypeError: For settings or models that cannot work, all in one message that
            names settings and remedies.
        RuntimeError: If the model has augmentations attached already.
    """

    def __init__(
        self,
        model: nn.Module,
        augmentations: Sequence[Augmentation],
        *,
        clean_weight: float | None = None,
        strict: bool = False,
        seed: int = 0,
        outside: Callable[[], Iterable[dict[str, Any]]] = tuple,
    ) -> None:
        if isinstance(getattr(model, 'loss', None), AugmentedLoss):
            raise RuntimeError(
                'feature augmentations are attached to this model already: detach() them first'
            )
        faults = list(model_faults(model))
        is_number = clean_weight is None or isinstance(clean_weight, Real)
        if not is_number or clean_weight == float('inf'):
            faults.append(TypeError(f'clean_weight={clean_weight!r}: give a finite number or None'))
            clean_weight = None
        if clean_weight is not None and not clean_weight > 0:
            faults.append(
                SettingError(
                    f'clean_weight={clean_weight!r} must be positive: without the clean loss, '
                    "learn='tail' teaches nothing before a tap",
                    Fix('hook', 'clean_weight', None),
                )
            )
        self.model = model
        self.augmentations: dict[str, Augmentation] = {}
        self.taps: list[Tap] = []
        self.copy_taps: list[CopyTaps] = []
        self.layers: list[tuple[Tap, FeatureTransform]] = []
        for augmentation in augmentations:
            try:
                self._place(augmentation)
                augmentation.bind(model)
            except (TypeError, ValueError) as error:
                faults.append(error)
        faults += augmentation_faults(model, self.augmentations)
        try:
            clean, views = share_weights(self.augmentations, clean_weight)
        except ValueError as error:
            faults.append(error)
        raise_together(faults)
        self.plan = Plan()
        self.step_count, self.update_count, self.was_active = 0, 0, False
        self._update: int | None = None
        self.outcome, self.clean_weights = Outcome(), 0.0
        fills = clean_weight is None
        self._settings = Settings(clean, views, fills, strict, seed, LossState(model, outside))
        self._replaced = model.__dict__.get('loss')
        model.__dict__['loss'] = self

    def detach(self) -> None:
        """Give the model its stock loss back."""
        if self.model.__dict__.get('loss') is not self:
            return
        del self.model.__dict__['loss']
        if self._replaced is not None:
            self.model.__dict__['loss'] = self._replaced

    def __enter__(self) -> 'AugmentedLoss':
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    @property
    def stock_loss(self) -> Callable[..., Losses]:
        """What ``model.loss`` was before."""
        return self._replaced or type(self.model).loss.__get__(self.model)  # type: ignore[attr-defined]

    @property
    def clean_weight(self) -> float:
        """Factor of the clean loss while all views are active."""
        return self._settings.clean_weight

    @property
    def view_weights(self) -> dict[str, tuple[float, ...]]:
        """Factors of the views, by name."""
        return self._settings.view_weights

    @property
    def objective(self) -> str:
        """In one line, such as ``objective = 0.50 clean + 2 x 0.25 afan = 1.00``."""
        terms = [taps.name for taps in self.copy_taps if taps.augmentation.active]
        return formula(self.clean_weight, self.view_weights, terms)

    @property
    def loss_state(self) -> LossState:
        """What losses keep between calls; may be shared by handles of one model."""
        return self._settings.loss_state

    @loss_state.setter
    def loss_state(self, state: LossState) -> None:
        self._settings.loss_state = state

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know, in plain types."""
        return dict(
            step_count=self.step_count,
            update_count=self.update_count,
            update=self._update,
            clean_weights=self.clean_weights,
            loss_scale=self._settings.loss_scale.value,
            good_steps=self._settings.loss_scale.good,
            full_precision=[str(tap) for tap in self.taps if tap.full_precision],
            copied=[str(tap) for tap in self.taps if tap.copy_records],
            acted=[str(tap) for tap, layer in self.layers if layer.acted],
            was_usable=[name for name, a in self.augmentations.items() if a.was_usable],
            was_reached=[str(each) for each in self._every_tap if each.was_reached],
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`; what it does not hold stays."""
        scale = self._settings.loss_scale
        self.step_count = state.get('step_count', self.step_count)
        self.update_count = state.get('update_count', self.step_count)
        self._update = state.get('update', self._update)
        # Of a checkpoint that lacks it: as if no view had been missing.
        self.clean_weights = state.get('clean_weights', self.step_count * self.clean_weight)
        scale.value = state.get('loss_scale', scale.value)
        scale.good = state.get('good_steps', scale.good)
        for name in state.get('was_usable', ()):
            if name in self.augmentations:
                self.augmentations[name].was_usable = True
        for each in self._every_tap:
            each.was_reached |= str(each) in state.get('was_reached', ())
        for tap in self.taps:
            tap.full_precision |= str(tap) in state.get('full_precision', ())
            tap.copy_records |= str(tap) in state.get('copied', ())
        for tap, layer in self.layers:
            layer.acted |= str(tap) in state.get('acted', ())

    @property
    def names(self) -> list[str]:
        """Of the augmentations that can make views, as they are logged."""
        return [name for name, augmentation in self._passes if augmentation.active]

    @property
    def owns_parameters(self) -> bool:
        """Whether some parameters get gradients in augmented steps only: second batch norms, and
        modules of augmentations.
        """
        parts = any(OWN_MODULES in path.split('.') for path, _ in self.model.named_modules())
        return parts or any(a.bn == 'separate' for _, a in self._passes)

    @property
    def needs_teacher(self) -> bool:
        """Whether any augmentation computes with averaged weights of the model."""
        return any(taps.augmentation.needs_teacher for taps in self.copy_taps)

    def follow(self, teacher: nn.Module) -> None:
        """Take the weights of this module, whenever they are needed, as those of the teacher: a
        copy of the model that somebody averages.
        """
        self._settings.teacher = {
            **dict(teacher.named_parameters(remove_duplicate=False)),
            **dict(teacher.named_buffers(remove_duplicate=False)),
        }

    def acts(self, name: str) -> bool:
        """Whether the plan of the next call lets an augmentation act."""
        augmentation, only = self.augmentations[name], self.plan.only
        if not (self.plan.enabled and augmentation.active):
            return False
        # The one view is chosen among those of additional passes; layers act beside it.
        return augmentation.in_place or bool(
            self.plan.views and self.plan.ramp and (only is None or only.name == name)
        )

    def describe(self) -> list[str]:
        """One line per tap: path, users, shapes of the last active call, and how views run."""
        return [
            f'{", ".join(name for name, _ in tap.members)} at {tap} '
            f'{tap.shapes} by {"replay" if tap.memoize else "full re-run"}'
            for tap in self.taps
        ] + [
            *(f'{taps.name} at {taps} by passes over copies' for taps in self.copy_taps),
            *(f'{layer.name} at {tap} in place' for tap, layer in self.layers),
        ]

    def __call__(self, *args: Any, **kwargs: Any) -> Losses:
        """The loss dict of the model, augmented if anything is active.

        Args:
            args, kwargs: Those of the stock loss; its first is the images, under any name.
        """
        if not args:
            first = next(iter(signature(self.stock_loss).parameters))
            args = (kwargs.pop(first if first in kwargs else next(iter(kwargs))),)
        inputs, *rest = args
        plan = self.plan
        taps, copy_taps, layers = self._active()
        self.plan = replace(plan, iteration=plan.iteration + 1)
        if self._settings.teacher is None:
            for each in copy_taps:
                if each.augmentation.needs_teacher:
                    raise RuntimeError(
                        f'{each.name} needs a teacher: add an EMAHook to custom_hooks, or call '
                        'follow() with an averaged copy of the model'
                    )
        self.was_active = bool(taps or copy_taps or layers)
        # Layers may act in every call; they count where there is nothing else.
        counts = bool(taps or copy_taps or (layers and not self.names))
        if counts and (plan.update is None or plan.update != self._update):
            self.update_count, self._update = self.update_count + 1, plan.update
        step_count, self.step_count = self.step_count, self.step_count + counts
        self.outcome = Outcome()
        with ExitStack() as stack:
            for tap, layer in layers:
                if tap.module is None:
                    inputs = layer.apply(inputs)
                else:
                    stack.enter_context(patched([(tap.module, 'forward', layer.around)]))
            batch = Batch(self.model, self.stock_loss, inputs, tuple(rest), kwargs)
            if taps or copy_taps:
                losses, self.outcome = run_step(
                    self.model,
                    taps,
                    copy_taps,
                    batch,
                    self._settings,
                    plan,
                    step_count,
                    self.update_count - 1,
                )
            elif layers:
                losses = batch.loss(inputs)
            else:
                losses = self.stock_loss(inputs, *rest, **kwargs)
        if counts:
            self.clean_weights += self.outcome.clean_weight
        for tap, layer in layers:
            if not layer.acted:
                raise not_called(tap.at, tap.module, layer.called)
        return losses

    def _active(
        self,
    ) -> tuple[dict[Tap, list[Member]], list[CopyTaps], list[tuple[Tap, FeatureTransform]]]:
        """What acts in this call: on features, on copies of the batch, and as layers."""
        plan, model = self.plan, self.model
        if not (plan.enabled and model.training and torch.is_grad_enabled()):
            return {}, [], []
        taps = {
            tap: acting
            for tap in self.taps
            if (acting := [member for member in tap.members if self.acts(member[0])])
        }
        copy_taps = [taps for taps in self.copy_taps if self.acts(taps.name)]
        return taps, copy_taps, [(tap, layer) for tap, layer in self.layers if layer.active]

    @property
    def _every_tap(self) -> list[Tap | CopyTaps]:
        return [*self.taps, *self.copy_taps]

    @property
    def _passes(self) -> list[tuple[str, Augmentation]]:
        """Augmentations that run additional passes, by name."""
        return [
            *(member for tap in self.taps for member in tap.members),
            *((taps.name, taps.augmentation) for taps in self.copy_taps),
        ]

    def _place(self, augmentation: Augmentation) -> None:
        if not isinstance(augmentation, Augmentation):
            raise TypeError(
                f'augmentations must hold Augmentation objects, got {type(augmentation).__name__}'
            )
        name, count = augmentation.name, 1
        while name in self.augmentations:
            count += 1
            name = f'{augmentation.name}{count}'
        self.augmentations[name] = augmentation
        if isinstance(augmentation, BatchAugmentation):
            self.copy_taps.append(CopyTaps(self.model, augmentation, name))
            return
        assert isinstance(augmentation, FeatureAugmentation)
        if isinstance(augmentation, FeatureTransform) and augmentation.in_place:
            tap = Tap(self.model, augmentation.at, augmentation.side)
            self.layers.append((tap, augmentation))
            return
        for tap in self.taps:
            if (tap.at, tap.side) == (augmentation.at, augmentation.side):
                break
        else:
            tap = Tap(self.model, augmentation.at, augmentation.side)
            self.taps.append(tap)
        tap.members.append((name, augmentation))
