# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Methods that do not use the loss: layers, or views."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from mmfeataug.utils.settings import share

from .augmentation import DEFAULT_LEARN, FeatureAugmentation, Tail, View
from .checkpointing import refuse_checkpointed
from .guards import no_autocast
from .tap import at_side, not_called


class FeatureTransform(FeatureAugmentation):
    """Base of methods that change a feature without using the loss.

    The training pass itself continues with the changed feature, without an extra pass, and
    gradients flow through the change; draws come from PyTorch's random stream, as dropout's do.
    Declared by ``mmfeataug.AugmentedBackbone`` it is a layer that is the identity in evaluation and
    needs no hook.

    Args:
        at, side: See :class:`Augmentation`.
        as_view: Leave the clean pass unchanged and train on an additional view.
        weight: Factor of that view's loss; None is a share, see :class:`FeatureAugmentation`.
        bn, learn: Of that view. Without ``as_view``, these three are refused.

    Attributes:
        muted: True makes the layer the identity in training, too.
        called: Whether something has passed the layer.
        acted: Whether that held a feature.
        module: The module that it is a layer of; None if it is not a layer of a model.
    """

    def __init__(
        self,
        *,
        at: str,
        side: str = 'output',
        as_view: bool = False,
        weight: float | None = None,
        bn: str = 'shared',
        learn: str = DEFAULT_LEARN,
    ) -> None:
        super().__init__(at=at, side=side, bn=bn, learn=learn)
        if not isinstance(as_view, bool):
            raise TypeError(f'as_view={as_view!r} at {at!r}: give True or False')
        of_view = [
            name
            for name, value, default in (
                ('weight', weight, None),
                ('bn', bn, 'shared'),
                ('learn', learn, DEFAULT_LEARN),
            )
            if value != default
        ]
        if of_view and not as_view:
            raise ValueError(
                f'{", ".join(of_view)} of {type(self).__name__} at {at!r}: that is of a view, and '
                'it changes the clean pass itself; add as_view=True, or leave it out'
            )
        self.as_view, self.in_place = as_view, not as_view
        self.weight = share('weight', weight, at)
        self.muted = self.called = self.acted = False
        self._owner: nn.Module | None = None
        self.module: nn.Module | None = None

    @property
    def active(self) -> bool:
        """False for a view without weight."""
        return not self.as_view or self.has_weight

    def is_drawn(self, generator: torch.Generator | None = None) -> bool:
        """Whether features are changed at all in this call.

        Args:
            generator: Alike on all ranks; None is PyTorch's random stream.
        """
        return True

    @abstractmethod
    def transform(self, feature: Tensor) -> Tensor:
        """The changed feature, same shape, differentiable; or the very same tensor.

        Args:
            feature: ``(N, C, H, W)``, ``(N, L, C)`` or ``(R, C)``, at least fp32.
        """

    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """One view, if ``as_view`` and :meth:`transform` changes anything."""
        if self.as_view:
            drawn = self.is_drawn(tail.shared)
            changed = [self.transform(f) if drawn else f for f in features]
            if any(c is not f for c, f in zip(changed, features, strict=True)):
                yield View(changed)

    def apply(self, value: Any) -> Any:
        """:meth:`transform` on the floating-point tensors of ``value``, in their own precision; at
        the input of a module on those that a gradient passes, if there are such: others (RoI
        coordinates, ratios of valid pixels) are no features.
        """
        self.called = True
        leaves, spec = tree_flatten(value)
        indices = [
            i
            for i, leaf in enumerate(leaves)
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim() > 1
        ]
        if self.side == 'input' and any(leaves[i].requires_grad for i in indices):
            indices = [i for i in indices if leaves[i].requires_grad]
        if not indices:
            return value
        self.acted = True
        given = [leaves[i] for i in indices]
        if not (self.accepts(given) and self.is_drawn()):
            return value
        with no_autocast(given[0]):
            clean = [f.to(torch.promote_types(f.dtype, torch.float32)) for f in given]
            views = [self.transform(f) for f in clean]
        for i, view in zip(indices, views, strict=True):
            leaves[i] = view.to(leaves[i].dtype)
        if self.observer is not None:
            self.observer(clean, views)
        return tree_unflatten(leaves, spec)

    def install(self, module: nn.Module, owner: nn.Module) -> None:
        """Make it a permanent layer of ``module``.

        Args:
            module: May be frozen, and in evaluation mode for it.
            owner: It acts while this, the model or a part of it that holds the module, is in
                training mode.
        """
        self._owner, self.module = owner, module
        if self.side == 'input':
            module.register_forward_pre_hook(self._before, with_kwargs=True)
        else:
            module.register_forward_hook(self._behind)
        owner.register_forward_hook(self._check)

    def around(self, module: nn.Module, name: str, original: Callable) -> Callable:
        """What a module calls instead of ``original`` while the transform acts on it."""

        def apply(value: Any) -> Any:
            refuse_checkpointed(self.at)
            return self.apply(value)

        return at_side(self.side, original, apply)

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        return self.apply((args, kwargs)) if self._acts else None

    def _behind(self, module: nn.Module, args: Any, output: Any) -> Any:
        return self.apply(output) if self._acts else None

    def _check(self, owner: nn.Module, args: Any, output: Any) -> None:
        """Once: heads that are entered by ``loss()`` may call ``self.forward``, past hooks."""
        if not self._acts:
            return
        for key, hook in list(owner._forward_hooks.items()):
            if hook == self._check:
                del owner._forward_hooks[key]
        if not self.acted:
            raise not_called(self.at, self.module, self.called)

    @property
    def _acts(self) -> bool:
        return not self.muted and self._owner is not None and self._owner.training
