# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Activation checkpointing, in the form that goes with gradients taken inside the forward pass.

OpenMMLab's ``with_cp`` and ``activation_checkpointing`` call ``torch.utils.checkpoint`` in its
reentrant form, which refuses gradients toward anything but parameters. The other form computes the
same, and runs a region again in a backward pass, when switches of batch norms and other weights
that a pass was made with are gone: they are put back for that time.
"""

import functools
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import checkpoint as checkpoints

from .tap import TapError

_running: list['Region'] = []


class Region:
    """One call of ``checkpoint(function, ...)``.

    Args:
        model: That it is a part of.
        function: Whose results are kept, and nothing between.
    """

    def __init__(self, model: nn.Module, function: Callable) -> None:
        self.model = model
        self._owners = _owners(function)
        self._is_module = isinstance(function, nn.Module)
        every = [m for owner in self._owners or [model] for m in owner.modules()]
        modules = [m for m in every if not isinstance(m, torch.jit.ScriptModule)]
        self._before = [(m, _switches(m)) for m in modules]
        self._now: list[tuple[nn.Module, dict[str, Any]]] = []

    def contexts(self) -> tuple['_Forward', '_Again']:
        """For the first run and for the others."""
        return _Forward(self), _Again(self)

    def switch_back(self) -> None:
        """All modules compute as in the first run, but learn no statistics: what a pass teaches
        batch norms does not depend on checkpointing.
        """
        self._now = [(m, _switches(m, copies=False)) for m, _ in self._before]
        for module, switches in self._before:
            vars(module).update(switches)
            if isinstance(module, _BatchNorm) and module.training and module.track_running_stats:
                module._buffers = {
                    name: None if b is None else b.clone() for name, b in module._buffers.items()
                }

    def switch_forth(self) -> None:
        """Undo :meth:`switch_back`."""
        for module, switches in self._now:
            vars(module).update(switches)
        self._now = []
        # Casts of weights that were cached belong to the graph of this run.
        torch.clear_autocast_cache()

    def __str__(self) -> str:
        """The nearest place that is not inside; empty where none is known."""
        names = [n for n, m in self.model.named_modules() if m in self._owners]
        if not names:
            return ''
        # A module that is called by checkpoint() is inside as a whole.
        return names[0].rpartition('.')[0] if self._is_module else names[0]


class _Forward:
    def __init__(self, region: Region) -> None:
        self._region = region

    def __enter__(self) -> None:
        _running.append(self._region)

    def __exit__(self, *_: object) -> None:
        if self._region in _running:
            _running.remove(self._region)


class _Again(_Forward):
    def __enter__(self) -> None:
        super().__enter__()
        self._region.switch_back()
        # Regions inside of this one have the form that they had in the first run.
        self._form = non_reentrant(self._region.model)
        self._form.__enter__()

    def __exit__(self, *_: object) -> None:
        self._form.__exit__(None, None, None)
        self._region.switch_forth()
        super().__exit__()


def is_checkpointed() -> bool:
    """Whether what runs now will run again in a backward pass, or does so already."""
    return bool(_running)


def refuse_checkpointed(at: object) -> None:
    """To be called where something acts on a feature.

    Args:
        at: Place, as users name it.

    Raises:
        TapError: If it is inside a region, which knows nothing of that when it runs again.
    """
    if _running:
        region = str(_running[0])
        raise TapError(
            f'at={str(at)!r} is inside of what activation checkpointing (with_cp, '
            'activation_checkpointing) runs again in the backward pass; the nearest place outside '
            + (f'is {region!r}' if region else 'is a module around it')
        )


@contextmanager
def non_reentrant(model: nn.Module) -> Iterator[None]:
    """Within this context, passes of the model that are checkpointed are so in the non-reentrant
    form, with their switches.
    """
    kept = {name: vars(checkpoints)[name] for name in _NAMES}
    generator = kept['_checkpoint_without_reentrant_generator']
    started: list[Generator] = []

    @functools.wraps(generator)
    def with_switches(function: Callable, preserve: bool, context_fn: Callable, *rest, **kwargs):
        if context_fn is checkpoints.noop_context_fn:
            context_fn = Region(model, function).contexts
        started.append(generator(function, preserve, context_fn, *rest, **kwargs))
        return started[-1]

    class NonReentrant:
        @staticmethod
        def apply(function: Callable, preserve: bool, *args: Any) -> Any:
            # Where gradients are off there is nothing to run again.
            if not torch.is_grad_enabled():
                with _Forward(Region(model, function)):
                    return function(*args)
            return checkpoints.checkpoint(
                function, *args, use_reentrant=False, preserve_rng_state=preserve
            )

    vars(checkpoints).update(zip(_NAMES, (NonReentrant, with_switches), strict=True))
    try:
        yield
    finally:
        vars(checkpoints).update(kept)
        # PyTorch 2.1 leaves one open, and its hooks in place, where a function raises.
        for each in reversed(started):
            each.close()


_NAMES = ('CheckpointFunction', '_checkpoint_without_reentrant_generator')


def _switches(module: nn.Module, copies: bool = True) -> dict[str, Any]:
    """What guards of a pass change in a module."""
    own = vars(module)
    found = {'training': own['training']}
    if 'track_running_stats' in own:
        found['track_running_stats'] = own['track_running_stats']
    for space in ('_parameters', '_buffers'):
        found[space] = dict(own[space]) if copies else own[space]
    return found


def _owners(function: Callable) -> list[nn.Module]:
    """The modules that a function is of: bound to, or closed over."""
    if isinstance(function, nn.Module):
        return [function]
    found = [getattr(function, '__self__', None)]
    for cell in getattr(function, '__closure__', None) or ():
        value = cell.cell_contents
        found += [value, getattr(value, '__self__', None)]
    return [m for m in found if isinstance(m, nn.Module)]
