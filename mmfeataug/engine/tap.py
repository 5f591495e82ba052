# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A named point of a network, and what is known about it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from .augmentation import FeatureAugmentation
from .paths import TapError, find_module

ENTRY_POINTS = ('forward', 'loss', 'loss_and_predict', 'predict')
"""Methods through which OpenMMLab models enter a module. Heads are entered by ``loss`` and call
``self.forward``."""


Member = tuple[str, FeatureAugmentation]
"""An augmentation with the name it is logged under."""


class FiringError(TapError):
    """A tap was reached more or less often than in the clean pass."""


class NotCalledError(TapError):
    """No feature passed a tap or a layer.

    Attributes:
        at: Its place.
    """

    at = ''


class Tap:
    """A point of ``model``, given as users write it in a config. Lives as long as the handle.

    Args:
        model: The network whose ``loss`` is recorded and replayed.
        at: A dotted path as printed by ``model.named_modules()``, or ``'inputs'`` for the images
            themselves.
        side: ``'output'`` taps what the module returns, ``'input'`` what it is called with.

    Attributes:
        module: At the path; None for ``'inputs'``.
        members: Augmentations that use the tap, with the names they are logged under.
        prefix: Modules that can run before the tap and do not contain it; after the first pass,
            only those that were entered from outside any other.
        drawing: Modules of ``prefix`` whose forward draws random numbers; None until the first
            pass has shown it.
        was_reached: Whether a pass has reached the tap, and its loss depended on what passed.
        verified: Whether ``memoize`` has been checked.
        memoize: Whether replays use recorded results; False runs the whole network for each view.
        copy_records: Whether something changes recorded results in place, so that copies are kept.
        full_precision: Whether views run outside autocast, because its precision would swallow
            them.
        shapes: Of the features of the last active call, for people to read.

    Raises:
        TapError: If the path is unknown, with the nearest names.
    """

    def __init__(self, model: nn.Module, at: str, side: str = 'output') -> None:
        self.at, self.side = at, side
        self.module = None if at == 'inputs' else find_module(model, at)
        self.members: list[Member] = []
        self.prefix: list[nn.Module] = []
        self.drawing: set[nn.Module] | None = None
        self.was_reached = self.verified = False
        self.memoize = True
        self.copy_records = self.full_precision = False
        self.shapes: list[tuple[int, ...]] = []
        if self.module is not None:
            inside = set(self.module.modules())
            self.prefix = [
                m
                for m in model.modules()
                if m not in inside and self.module not in set(m.modules())
            ]

    def __str__(self) -> str:
        return self.at if self.side == 'output' else f'{self.at} ({self.side})'

    def not_reached_error(self) -> NotCalledError:
        """The error to raise if the first pass went by without reaching this tap."""
        return not_called(self.at, self.module)

    def replacements(
        self, around: Callable | None, at_tap: Callable
    ) -> Iterator[tuple[nn.Module, str, Callable]]:
        """What to hand to :func:`patched`: ``around``, if there is one, for every way into a module
        of the prefix, ``at_tap`` for the tapped module.
        """
        for module in self.prefix if around else ():
            for name in entries(module):
                yield module, name, around  # type: ignore[misc]
        if self.module is not None:
            yield self.module, 'forward', at_tap


def entries(module: nn.Module) -> Iterator[str]:
    """Names of the methods by which a module can be entered."""
    for name in ENTRY_POINTS:
        method = getattr(type(module), name, None)
        if callable(method) and method is not nn.Module.forward:
            yield name


def not_called(at: str, module: nn.Module | None, called: bool = False) -> NotCalledError:
    """The error to raise if no feature passed a tap or a layer, whose module was ``called``."""
    children = [] if module is None else [f'{at}.{n}' for n, _ in module.named_children()]
    error = NotCalledError(
        f'at={at!r}: what passes this module holds no floating-point tensor of two dimensions or '
        'more in tuples, lists or dicts; choose a module that yields features'
        if called
        else f'at={at!r}: this module was not called in the training pass; choose one that is, '
        f'such as {", ".join(children[:4]) or "its parent or a sibling"} '
        '(tools/analysis_tools/list_taps.py CONFIG prints every place)'
    )
    error.at = at
    return error


def at_side(side: str, original: Callable, change: Callable[[Any], Any]) -> Callable:
    """``original`` with ``change`` made to what it returns, or (``side='input'``) to what it is
    called with, as ``(args, kwargs)``.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        if side == 'output':
            return change(original(*args, **kwargs))
        args, kwargs = change((args, kwargs))
        return original(*args, **kwargs)

    return call


@contextmanager
def patched(replacements: Iterable[tuple[nn.Module, str, Callable]]) -> Iterator[None]:
    """Put ``make(module, name, original)`` in place of methods, on the instances, for the time of
    the context.
    """
    undo = []
    try:
        for module, name, make in replacements:
            undo.append((module, name, module.__dict__.get(name)))
            module.__dict__[name] = make(module, name, getattr(module, name))
        yield
    finally:
        for module, name, previous in reversed(undo):
            if previous is None:
                module.__dict__.pop(name, None)
            else:
                module.__dict__[name] = previous
