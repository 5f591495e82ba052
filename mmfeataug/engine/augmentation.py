# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Base classes of all methods, and of those that make views."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmfeataug.functional import too_few

from .guards import BN_POLICIES

SIDES = ('output', 'input')
LEARN = ('tail', 'skips', 'network')
DEFAULT_LEARN = 'tail'
"""What the loss of a view trains where a config does not say it."""


class Augmentation(ABC):
    """Base of all methods.

    Args:
        at: Place: a dotted path of ``model.named_modules()``, or ``'inputs'``. In a config also a
            pattern, such as ``'backbone.layer[12]'``, or a list: one augmentation for each place,
            see :func:`mmfeataug.engine.build_each`.
        side: ``'output'`` or ``'input'`` of that module.
        bn: How batch norms treat the additional passes: ``'shared'`` (statistics updated by them
            too), ``'frozen'`` (batch statistics, running ones untouched), ``'eval'`` (running
            statistics) or ``'separate'`` (batch norms of their own, which
            ``mmfeataug.AugmentedModel`` or ``mmfeataug.AugmentedBackbone`` makes).

    Attributes:
        observer: None, or a function that is called with what the augmentation did in a training
            pass: ``observer(clean, changed, images=None, index=0)``, with lists of tensors, the
            copies of the batch if these are compared, and the number of the view or copy. It must
            neither change nor keep them. A layer behind a tap calls it again in each replay.
        was_usable: Whether a batch that the method could work with has come by.
        strength_name: The setting that says how far it moves features; empty without one.
        least_samples: Smaller batches are left alone.
        in_place: Whether it changes the clean pass itself, without an additional one.
    """

    observer: Callable[..., None] | None = None
    was_usable = in_place = False
    strength_name = ''
    least_samples = 1

    def __init__(self, *, at: str, side: str = 'output', bn: str = 'shared') -> None:
        if not isinstance(at, str) or not at:
            raise TypeError(
                f"at={at!r}: give a module path such as 'backbone.layer2', or 'inputs'; several "
                'places are several augmentations, which a config, dict(type=..., at=[...]), makes'
            )
        if side not in SIDES:
            raise ValueError(f'side={side!r} at {at!r}: choose {" or ".join(map(repr, SIDES))}')
        if at == 'inputs' and side == 'input':
            raise ValueError("side='input' at 'inputs': images are no module, give side='output'")
        if bn not in BN_POLICIES:
            raise ValueError(f'bn={bn!r}: choose one of {", ".join(BN_POLICIES)}')
        self.at, self.side, self.bn = at, side, bn

    @property
    def name(self) -> str:
        """Prefix of what is logged."""
        return type(self).__name__.lower()

    @property
    @abstractmethod
    def active(self) -> bool:
        """False if the settings have no effect; then no extra pass is run."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Its places."""
        return (self.at,)

    @property
    def starts_at(self) -> tuple[str, str]:
        """Place and side from which on additional passes run the network, for ``bn='separate'``."""
        return self.at, self.side

    def bind(self, model: nn.Module) -> None:  # noqa: B027
        """Prepare for a model; called once, when the augmentation is attached."""

    def modules(self) -> dict[str, nn.Module]:
        """New modules with parameters of its own, by name; ``mmfeataug.AugmentedModel`` asks for
        them when it builds the model.
        """
        return {}


@dataclass
class View:
    """A variant of the features at a tap, to be trained on.

    Attributes:
        features: One tensor for each recorded feature, same shapes, fp32 or wider; out of the graph
            of the clean pass. Parameters of the augmentation's own that they depend on are trained.
        weight: Factor of this view's loss in the objective, scaled with all other weights if they
            are to sum to 1 (``clean_weight=None``); None takes the one of
            :attr:`FeatureAugmentation.weights` at the same position, or its share if that is None.
    """

    features: list[Tensor]
    weight: float | None = None


@dataclass
class Tail:
    """The network behind a tap, as a function of the features there.

    ``tail(features)`` returns ``(loss, gradients)``: the unweighted total training loss (a scalar)
    and its gradient toward each feature. With ``against``, only terms of the loss whose name holds
    one of these words are summed. Parameters get no gradient and batch norms keep their running
    statistics. Call it equally often on every rank: the network may use collectives.

    Attributes:
        generator: Source of draws of perturbations, on the device of the features: depends on
            seed, iteration and rank, so that a resumed run has the same draws and ranks have
            different ones.
        shared: Source of draws that decide how many views there are, on the CPU: the same on
            every rank.
    """

    evaluate: Callable[..., tuple[Tensor, list[Tensor]]]
    generator: torch.Generator
    shared: torch.Generator = field(default_factory=torch.Generator)

    def __call__(
        self, features: Sequence[Tensor], against: Sequence[str] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients at these features.

        Args:
            features: As many as :meth:`FeatureAugmentation.views` was given, same shapes.
            against: Words in the names of loss terms; empty: the whole loss.
        """
        return self.evaluate(features, against=against)

    def loss(self, features: Sequence[Tensor], against: Sequence[str] = ()) -> Tensor:
        """The loss alone, by a forward pass."""
        return self.evaluate(features, against=against, with_grad=False)[0]


class FeatureAugmentation(Augmentation):
    """Base of methods that make views of a feature.

    Args:
        at, side, bn: See :class:`Augmentation`.
        learn: What the loss of a view trains. ``'tail'``: what runs behind the tap; what ran
            before is constant. ``'skips'``: also what runs before the tap, as far as its results
            pass the tap by, such as the low-level skip of DeepLabV3+. ``'network'``: all of it, as
            if the view were the feature plus a constant.

    Attributes:
        attack_bn: How batch norms treat evaluations of the tail: ``'frozen'``, or ``'eval'``, where
            nothing is dropped either.
        weight: Factor of a view's loss, or one for each view it makes. None is a share: all views
            without a weight share what others leave, see
            :func:`mmfeataug.engine.weights.share_weights`.
        axes: What its deviations are taken over, see
            :func:`mmfeataug.functional.statistic_dims`; empty if it takes none.
    """

    weight: float | Sequence[float | None] | None = None
    axes = ''

    def __init__(
        self, *, at: str, side: str = 'output', bn: str = 'shared', learn: str = DEFAULT_LEARN
    ) -> None:
        super().__init__(at=at, side=side, bn=bn)
        if learn not in LEARN:
            raise ValueError(f'learn={learn!r} at {at!r}: choose one of {", ".join(LEARN)}')
        self.learn = learn
        self.attack_bn = 'eval' if bn == 'eval' else 'frozen'

    @property
    def weights(self) -> tuple[float | None, ...]:
        """Of the views it makes, in their order."""
        weight = self.weight
        return (weight,) if weight is None or isinstance(weight, (int, float)) else tuple(weight)

    @property
    def has_weight(self) -> bool:
        """Whether any view may count."""
        return any(w is None or w > 0 for w in self.weights)

    def fault(self, features: list[Tensor]) -> str:
        """What keeps the method from working with features of these sizes, and the remedy; empty if
        nothing does. Here: too few samples, or too few values to take a deviation of.
        """
        needed = self.least_samples
        if needed > 1 and (least := min(map(len, features))) < needed:
            return (
                f'{type(self).__name__} at {self.at!r} needs at least {needed} samples in a batch '
                f'of each process, got {least}: set train_dataloader.batch_size={needed} or more'
            )
        fault = too_few(features, self.axes) if self.axes else ''
        return f'{type(self).__name__} at {self.at!r}: {fault}' if fault else ''

    def accepts(self, features: list[Tensor]) -> bool:
        """Whether :meth:`fault` finds none; a batch with one, such as a small one at the end of an
        epoch, is left alone.

        Raises:
            ValueError: With the fault, if that is the first batch: then all are so.
        """
        fault = self.fault(features)
        if fault and not self.was_usable:
            raise ValueError(fault)
        self.was_usable = True
        return not fault

    def attack_gradients(
        self, features: list[Tensor], gradients: list[Tensor], tail: Tail
    ) -> list[Tensor]:
        """What to move a view by: the gradients of the clean pass, which cost nothing, or those of
        one more pass where views have other batch norms. Arguments are those of :meth:`views`.
        """
        return tail(features)[1] if self.bn in ('separate', 'eval') else gradients

    @abstractmethod
    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """Make views, of features that the method :meth:`accepts` on all processes.

        Args:
            features: Detached clean features at the tap, fp32; not to be changed in place:
                ``(N, C, H, W)`` of convolutions, ``(N, L, C)`` of transformers, ``(R, C)`` of RoI
                heads. Several if the module yields a tuple or is called several times in a pass.
            gradients: Gradient of the clean training loss toward each of them, same shapes, fp32.
            tail: Evaluates the loss from the tap, for attacks of several steps.
        """
