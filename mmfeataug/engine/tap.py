# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A named point of a network: record a pass there, replay the rest of the pass from there.

A replay calls the same function as the recorded pass. Whatever was computed before the tap returns
what was recorded, the tap yields the features it is given, and what follows runs as usual. No
network is split by hand.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from .recording import Recording, Replay, TapError

ENTRY_POINTS = ('forward', 'loss', 'loss_and_predict', 'predict')
"""Methods through which OpenMMLab models enter a module. Heads are entered by ``loss`` and call
``self.forward``."""


class Tap:
    """A point of ``model``, given as users write it in a config.

    Args:
        model: The network whose ``loss`` is recorded and replayed.
        at: A dotted path as printed by ``model.named_modules()``, or ``'inputs'`` for the images
            themselves.
        side: ``'output'`` taps what the module returns, ``'input'`` what it is called with.

    Raises:
        TapError: If the path is unknown (with the nearest names) or ``side`` is neither of the two.
    """

    def __init__(self, model: nn.Module, at: str, side: str = 'output') -> None:
        if side not in ('output', 'input'):
            raise TapError(f"side={side!r} of the tap at {at!r}: write 'output' or 'input'")
        self.at, self.side = at, side
        self.module = None if at == 'inputs' else find_module(model, at)
        # What can run before the tap and does not contain it. After the first pass only the
        # outermost callers remain.
        self._prefix: list[nn.Module] = []
        self._settled = False
        # Modules whose forward draws random numbers; None until the first pass has shown it.
        self.drawing: set[nn.Module] | None = None
        # Set once it is known that something changes recorded results in place.
        self.copy_records = False
        if self.module is not None:
            inside = set(self.module.modules())
            self._prefix = [
                m
                for m in model.modules()
                if m not in inside and self.module not in set(m.modules())
            ]

    def __str__(self) -> str:
        return self.at if self.side == 'output' else f'{self.at} ({self.side})'

    @contextmanager
    def record(self, live_prefix: bool = False) -> Iterator[Recording]:
        """Within this context one pass is recorded; the features it produces become points to
        differentiate to.

        Args:
            live_prefix: Keep the recorded prefix in the autograd graph, so that skips around the
                tap train it.
        """
        recording = Recording(self, live_prefix)
        with patched(self._replacements(recording.around_call, recording.at_tap)):
            yield recording
        self._settle(recording)

    @contextmanager
    def replay(
        self,
        recording: Recording,
        features: list[Tensor],
        on_fire: Callable[[], None],
        memoize: bool = True,
        widen: bool = False,
    ) -> Iterator[Replay]:
        """Within this context a pass starts from ``features`` at the tap.

        Args:
            recording: What :meth:`record` saw for the same batch.
            features: One tensor for each of ``recording.features``, same shapes.
            on_fire: Called when the tap is reached for the first time.
            memoize: False runs the modules before the tap again instead of returning what was
                recorded.
            widen: Return recorded results of a narrow type as float32, for a pass outside autocast.
        """
        replay = Replay(recording, features, on_fire, widen)
        around = replay.recall if memoize else replay.rerun
        with patched(self._replacements(around, replay.at_tap)):
            yield replay

    def silent(self) -> TapError:
        """The error to raise if a pass went by without reaching this tap."""
        return not_called(self.at, self.module)

    def _replacements(
        self, around: Callable, at_tap: Callable
    ) -> Iterator[tuple[nn.Module, str, Callable]]:
        for module in self._prefix:
            for name in ENTRY_POINTS:
                method = getattr(type(module), name, None)
                if callable(method) and method is not nn.Module.forward:
                    yield module, name, around
        if self.module is not None:
            yield self.module, 'forward', at_tap

    def _settle(self, recording: Recording) -> None:
        if self._settled or not recording.features:
            return
        self.drawing = recording.drawing
        nested = {child for m in recording.called for child in m.modules() if child is not m}
        self._prefix = [m for m in self._prefix if m not in nested]
        self._settled = True


def not_called(at: str, module: nn.Module | None) -> TapError:
    """The error to raise if no feature came by a place."""
    children = [] if module is None else [f'{at}.{n}' for n, _ in module.named_children()]
    return TapError(
        f'at={at!r}: this module was not called in the training pass; choose one that is, such as '
        f'{", ".join(children[:4]) or "its parent or a sibling"} '
        '(tools/analysis_tools/list_taps.py CONFIG prints every place)'
    )


def find_module(model: nn.Module, path: str) -> nn.Module:
    """The module at a dotted path.

    Raises:
        TapError: With the nearest existing paths if there is none.
    """
    modules = dict(model.named_modules())
    if path and path in modules:
        return modules[path]
    parent = path
    while parent and parent not in modules:
        parent = parent.rpartition('.')[0]
    children = [f'{parent}.{n}'.lstrip('.') for n, _ in modules[parent].named_children()]
    near = difflib.get_close_matches(path, modules, n=3) or children[:12]
    raise TapError(
        f'at={path!r}: the model has no such module. Nearest: {", ".join(near) or "none"}; '
        f'below {parent or "the model"!r}: {", ".join(children[:12]) or "nothing"}. '
        'tools/analysis_tools/list_taps.py CONFIG prints every place'
    )


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
