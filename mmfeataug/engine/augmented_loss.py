# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What stands in the place of ``model.loss`` while augmentations are attached."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from .augmentation import Augmentation, BatchAugmentation, FeatureAugmentation
from .auxiliary import PARTS, check_separate
from .batch import Batch
from .checks import check_model
from .losses import Losses
from .step import Step
from .tail import Place
from .tap import Tap, patched
from .terms import Choice, Settings, Terms
from .transform import FeatureTransform
from .watch import Watch

ENGINES = ('precomputed', 'graph')


class AugmentedLoss:
    """Takes the place of ``model.loss`` while attached, and is the handle to take it off again.

    A call runs the stock loss once on the clean batch, then once more from each tap for every view,
    and returns the stock loss dict with one more loss a view. See ``docs/design.md`` for the order
    of an iteration.

    Args:
        model: A model with ``loss(inputs, data_samples)`` and ``parse_losses``, as mmengine's
            ``BaseModel``.
        augmentations: The methods, each with its place.
        clean_weight: Factor of the clean loss while views are active; positive.
        engine: ``'precomputed'`` takes gradients pass by pass; ``'graph'`` keeps one autograd graph
            of all passes.
        strict: Raise where a replay is not exact instead of falling back to a full re-run.
        seed: Of the methods' random draws.

    Attributes:
        augmentations: All of them, by the names they are logged under.
        enabled: False runs the stock loss alone.
        ramp: Factor of all view weights, for warm-up; 0 runs the stock loss alone.
        iteration: Counts calls; whoever resumes a run sets it.
        turns: Counts calls in which something acted.
        active: Whether that was so in the last call.
        only: The one view to train on, for those who want to pay for no more; None is all of them.
        weights: Of all views that the last active call could have trained on, by name.
        parts: Numbers of samples, from the fewest to one short of the batch, that the views of the
            last active call could have been trained on, by name; those that need the whole batch
            are missing.

    Raises:
        ValueError, TypeError: For settings or models that cannot work; the message names setting
            and remedy.
        RuntimeError: If the model has augmentations attached already.
    """

    def __init__(
        self,
        model: nn.Module,
        augmentations: Sequence[Augmentation],
        *,
        clean_weight: float = 1.0,
        engine: str = 'precomputed',
        strict: bool = False,
        seed: int = 0,
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f'engine={engine!r}: choose one of {", ".join(ENGINES)}')
        if not clean_weight > 0:
            raise ValueError(
                f'clean_weight={clean_weight!r} must be positive: layers before a tap learn from '
                'the clean loss only'
            )
        if isinstance(getattr(model, 'loss', None), AugmentedLoss):
            raise RuntimeError(
                'feature augmentations are attached to this model already: detach() them first'
            )
        check_model(model, engine)
        self.model = model
        self.enabled, self.ramp, self.iteration, self.active = True, 1.0, 0, False
        self.turns = 0
        self.only: Choice | None = None
        self.weights: dict[str, list[float]] = {}
        self.parts: dict[str, range] = {}
        self._settings = Settings(clean_weight, engine == 'graph', strict, seed)
        self.augmentations: dict[str, Augmentation] = {}
        self._watches: list[Watch] = []
        self._layers: list[tuple[Tap, FeatureTransform]] = []
        self._places = self._find_places(augmentations)
        for augmentation in augmentations:
            augmentation.bind(model)
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
        """Factor of the clean loss while views are active."""
        return self._settings.clean_weight

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know, in plain types."""
        wide = [str(place.tap) for place in self._places if place.full_precision]
        return dict(
            turns=self.turns,
            loss_scale=self._settings.loss_scale.value,
            good_steps=self._settings.loss_scale.good,
            full_precision=wide,
            begun=[name for name, a in self.augmentations.items() if a.has_begun],
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`; what it does not hold stays."""
        scale = self._settings.loss_scale
        self.turns = state.get('turns', self.turns)
        scale.value = state.get('loss_scale', scale.value)
        scale.good = state.get('good_steps', scale.good)
        for name in state.get('begun', ()):
            if name in self.augmentations:
                self.augmentations[name].has_begun = True
        for place in self._places:
            place.full_precision |= str(place.tap) in state.get('full_precision', ())

    @property
    def names(self) -> list[str]:
        """Of the augmentations that can make views, as they are logged."""
        return [name for name, augmentation in self._passes if augmentation.active]

    @property
    def owns_parameters(self) -> bool:
        """Whether some parameters get gradients in augmented steps only: second batch norms, and
        modules of augmentations.
        """
        parts = any(PARTS in path.split('.') for path, _ in self.model.named_modules())
        return parts or any(a.bn == 'separate' for _, a in self._passes)

    @property
    def needs_teacher(self) -> bool:
        """Whether any augmentation computes with averaged weights of the model."""
        return any(watch.augmentation.needs_teacher for watch in self._watches)

    def follow(self, teacher: nn.Module) -> None:
        """Take the weights of this module, whenever they are needed, as those of the teacher: a
        copy of the model that somebody averages.
        """
        self._settings.teacher = {
            **dict(teacher.named_parameters(remove_duplicate=False)),
            **dict(teacher.named_buffers(remove_duplicate=False)),
        }

    @property
    def _passes(self) -> list[tuple[str, Augmentation]]:
        """Augmentations that run additional passes, by name."""
        return [
            *(member for place in self._places for member in place.members),
            *((watch.name, watch.augmentation) for watch in self._watches),
        ]

    def describe(self) -> list[str]:
        """One line a tap: path, what uses it, shapes of the last active call, and how views run."""
        return [
            f'{", ".join(name for name, _ in place.members)} at {place.tap} '
            f'{place.shapes} by {"replay" if place.memoize else "full re-run"}'
            for place in self._places
        ] + [
            *(f'{watch.name} at {watch} by passes over copies' for watch in self._watches),
            *(f'{layer.name} at {tap} in place' for tap, layer in self._layers),
        ]

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Losses:
        """The loss dict of the model, augmented if anything is active."""
        iteration, self.iteration = self.iteration, self.iteration + 1
        places, watches, layers = self._active()
        if self._settings.teacher is None:
            for watch in watches:
                if watch.augmentation.needs_teacher:
                    raise RuntimeError(
                        f'{watch.name} needs a teacher: add an EMAHook to custom_hooks, or call '
                        'follow() with an averaged copy of the model'
                    )
        self.active = bool(places or watches or layers)
        turn, self.turns = self.turns, self.turns + self.active
        with ExitStack() as stack:
            for tap, transform in layers:
                if tap.module is None:
                    inputs = transform.apply(inputs)
                else:
                    stack.enter_context(patched([(tap.module, 'forward', transform.around)]))
            if places or watches:
                batch = Batch(self.stock_loss, inputs, args, kwargs)
                settings = self._settings
                terms = Terms(self.model, settings, self.ramp, iteration, self.only)
                losses = Step(self.model, places, watches, batch, settings, terms, turn).run()
                self.weights, self.parts = terms.weights, terms.parts
            else:
                losses = self.stock_loss(inputs, *args, **kwargs)
        for tap, transform in layers:
            if not transform.acted:
                raise tap.silent()
        return losses

    def _active(
        self,
    ) -> tuple[list[Place], list[Watch], list[tuple[Tap, FeatureTransform]]]:
        """What acts in this call: on features, on copies of the batch, and as layers."""
        if not (self.enabled and self.ramp and self.model.training and torch.is_grad_enabled()):
            return [], [], []

        def acts(name: str, augmentation: Augmentation) -> bool:
            return augmentation.active and (self.only is None or self.only.name == name)

        places = [p for p in self._places if any(acts(n, a) for n, a in p.members)]
        watches = [w for w in self._watches if acts(w.name, w.augmentation)]
        return places, watches, [(tap, t) for tap, t in self._layers if t.active]

    def _find_places(self, augmentations: Sequence[Augmentation]) -> list[Place]:
        places: dict[tuple[str, str], Place] = {}
        names: dict[str, int] = {}
        for augmentation in augmentations:
            if not isinstance(augmentation, Augmentation):
                raise TypeError(
                    f'augmentations must hold Augmentation objects, got '
                    f'{type(augmentation).__name__}'
                )
            if 'loss' in augmentation.name:
                raise ValueError(
                    f'{type(augmentation).__name__} is logged as {augmentation.name!r}: mmengine '
                    "adds up all that is logged with 'loss' in its name; override its property name"
                )
            count = names[augmentation.name] = names.get(augmentation.name, 0) + 1
            name = augmentation.name if count == 1 else f'{augmentation.name}{count}'
            self.augmentations[name] = augmentation
            if augmentation.bn == 'separate':
                check_separate(self.model, name, augmentation.begins)
            if isinstance(augmentation, BatchAugmentation):
                self._watches.append(Watch(self.model, augmentation, name))
                continue
            assert isinstance(augmentation, FeatureAugmentation)
            if isinstance(augmentation, FeatureTransform) and not augmentation.as_view:
                tap = Tap(self.model, augmentation.at, augmentation.side)
                self._layers.append((tap, augmentation))
                continue
            if augmentation.live_prefix and not self._settings.graph:
                raise ValueError(
                    f"live_prefix=True at {augmentation.at!r} needs engine='graph', got "
                    "engine='precomputed'"
                )
            key = augmentation.at, augmentation.side
            if key not in places:
                places[key] = Place(Tap(self.model, *key))
            places[key].members.append((name, augmentation))
            if len({member.live_prefix for _, member in places[key].members}) > 1:
                raise ValueError(
                    f'live_prefix differs between augmentations at {augmentation.at!r}: give all '
                    'of one place the same'
                )
        return list(places.values())
