# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A named point of a network: record a pass there, replay the rest of the pass from there.

A replay calls the same function as the recorded pass. Whatever was computed before the tap returns
what was recorded, the tap yields the features it is given, and what follows runs as usual. No
network is split by hand.
"""

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from .guards import RandomState

ENTRY_POINTS = ('forward', 'loss', 'loss_and_predict', 'predict')
"""Methods through which OpenMMLab models enter a module. Heads are entered by ``loss`` and call
``self.forward``."""


class TapError(ValueError):
    """A tap cannot work where it was put; the message names the path and the remedy."""


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
        self._drawing: set[nn.Module] | None = None
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
    def record(self, live_prefix: bool = False) -> Iterator['Recording']:
        """Within this context one pass is recorded; the features it produces become points to
        differentiate to.

        Args:
            live_prefix: Keep the recorded prefix in the autograd graph, so that skips around the
                tap train it.
        """
        recording = Recording(self, live_prefix)
        with patched(self._replacements(recording._record_call, recording._record_tap)):
            yield recording
        self._settle(recording)

    @contextmanager
    def replay(
        self,
        recording: 'Recording',
        features: list[Tensor],
        on_fire: Callable[[], None],
        memoize: bool = True,
        widen: bool = False,
    ) -> Iterator['Replay']:
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
        around = replay._recall if memoize else replay._rerun
        with patched(self._replacements(around, replay._replace)):
            yield replay

    def silent(self) -> TapError:
        """The error to raise if a pass went by without reaching this tap."""
        children = (
            []
            if self.module is None
            else [f'{self.at}.{n}' for n, _ in self.module.named_children()]
        )
        return TapError(
            f'at={self.at!r}: this module was not called in the training pass; choose one that '
            'is, such as '
            f'{", ".join(children[:4]) or "its parent or a sibling"} '
            '(tools/analysis_tools/list_taps.py CONFIG prints every place)'
        )

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

    def _settle(self, recording: 'Recording') -> None:
        if self._settled or not recording.features:
            return
        self._drawing = recording.drawing
        nested = {child for m in recording.called for child in m.modules() if child is not m}
        self._prefix = [m for m in self._prefix if m not in nested]
        self._settled = True


class Recording:
    """One recorded pass of one tap. Lives for one iteration: it holds tensors of the graph.

    Attributes:
        handles: Points of the autograd graph, one a float tensor that passed the tap, in call
            order.
        features: The same values, detached.
        called: Modules that were entered from outside any other watched module.
        foreign: Name of a module that was running when the tap fired although it does not contain
            it, or None.
    """

    def __init__(self, tap: Tap, live_prefix: bool = False) -> None:
        self.tap = tap
        self.live_prefix = live_prefix
        self.handles: list[Tensor] = []
        self.structures: list[tuple[list[Any], Any, list[int | None]]] = []
        self.random_at_start = RandomState()
        self.random: list[RandomState] = []
        self.calls: dict[tuple[nn.Module, str], list[tuple[Any, RandomState | None]]] = defaultdict(
            list
        )
        self.drawing: set[nn.Module] = set()
        self.called: set[nn.Module] = set()
        self.foreign: str | None = None
        self._running: list[nn.Module] = []

    @property
    def fired(self) -> bool:
        """Whether the pass has reached the tap."""
        return bool(self.structures)

    @property
    def features(self) -> list[Tensor]:
        """Detached values of the handles."""
        return [handle.detach() for handle in self.handles]

    def capture(self, value: Any) -> Any:
        """Take note of a value at the tap; returns what the pass has to go on with.

        Raises:
            TapError: If ``value`` holds no floating-point tensor.
        """
        leaves, spec = tree_flatten(value)
        index: dict[int, int] = {}
        slots: list[int | None] = []
        passed = []
        for leaf in leaves:
            if not (isinstance(leaf, Tensor) and leaf.is_floating_point()):
                slots.append(None)
                passed.append(leaf)
                continue
            if id(leaf) not in index:
                index[id(leaf)] = len(self.handles)
                # A view, so that other users of the same tensor stay out of the gradient; a leaf
                # where the prefix is frozen, so that there is a gradient at all.
                grad = leaf.requires_grad
                self.handles.append(leaf.view_as(leaf) if grad else leaf.detach().requires_grad_())
            slots.append(index[id(leaf)])
            # A clone goes on: an in-place operation behind the tap would overwrite what is
            # recorded.
            passed.append(self.handles[index[id(leaf)]].clone())
        if not index:
            raise TapError(
                f'tap at {self.tap}: the module yields no floating-point tensor '
                f'({type(value).__name__}); tap a module that yields features'
            )
        kept = [
            self.isolate(leaf) if slot is None else None
            for leaf, slot in zip(leaves, slots, strict=True)
        ]
        self.structures.append((kept, spec, slots))
        self.random.append(RandomState())
        return tree_unflatten(passed, spec)

    def isolate(self, value: Any) -> Any:
        """A recorded value as a replay may have it: out of the graph, and out of reach where that
        is needed.
        """
        # Duck-typed on purpose: a Tensor and mmengine's data elements both return a detached copy
        # of the container.
        if not self.live_prefix and hasattr(value, 'detach'):
            value = value.detach()
        return value.clone() if self.tap.copy_records and hasattr(value, 'clone') else value

    def version(self) -> int:
        """Grows when an operation changes a recorded tensor in place."""
        results = [result for records in self.calls.values() for result, _ in records]
        return sum(t._version for t in tree_flatten(results)[0] if isinstance(t, Tensor))

    def release(self) -> None:
        """Let go of the autograd graph; values stay."""
        self.handles = [handle.detach() for handle in self.handles]

    def _record_tap(self, module: nn.Module, name: str, original: Callable) -> Callable:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._running and not self.fired:
                self.foreign = type(self._running[-1]).__name__
            if self.tap.side == 'output':
                return self.capture(original(*args, **kwargs))
            args, kwargs = self.capture((args, kwargs))
            return original(*args, **kwargs)

        return forward

    def _record_call(self, module: nn.Module, name: str, original: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            outermost, before = not self._running, not self.fired
            if outermost:
                self.called.add(module)
            drawing = self.tap._drawing
            # Heads draw when their samplers have more candidates than they need, so they always
            # count.
            draws = name != 'forward' or drawing is None or module in drawing
            state = RandomState() if outermost and before and draws else None
            self._running.append(module)
            try:
                result = original(*args, **kwargs)
            finally:
                self._running.pop()
            if outermost and before and not self.fired:
                after = RandomState() if state else None
                if after is not None and after != state:
                    self.drawing.add(module)
                self.calls[module, name].append((tree_map(self.isolate, result), after))
            return result

        return call


class Replay:
    """One pass from given features; see :meth:`Tap.replay`."""

    def __init__(
        self,
        recording: Recording,
        features: list[Tensor],
        on_fire: Callable[[], None],
        widen: bool = False,
    ) -> None:
        self._recording = recording
        self._widen = widen
        self._features = features
        self._on_fire = on_fire
        self._depth = 0
        self._seen: dict[tuple[nn.Module, str], int] = defaultdict(int)
        self.occurrence = 0

    def substitute(self) -> Any:
        """What goes on from the tap in place of what the module yields.

        Raises:
            TapError: If the tap is reached more often than in the recorded pass.
        """
        recording = self._recording
        if self.occurrence == len(recording.structures):
            raise TapError(f'tap at {recording.tap} was reached more often than in the clean pass')
        kept, spec, slots = recording.structures[self.occurrence]
        recording.random[self.occurrence].restore()
        self.occurrence += 1
        if self.occurrence == 1:
            self._on_fire()
        # Clones, as in the recorded pass: the same features may be replayed again.
        leaves = [
            old if slot is None else self._features[slot].clone()
            for old, slot in zip(kept, slots, strict=True)
        ]
        return tree_unflatten(leaves, spec)

    def _isolate(self, value: Any) -> Any:
        value = self._recording.isolate(value)
        narrow = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        return value.float() if self._widen and narrow else value

    def _replace(self, module: nn.Module, name: str, original: Callable) -> Callable:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._recording.tap.side == 'output':
                return self.substitute()
            args, kwargs = self.substitute()
            return original(*args, **kwargs)

        return forward

    def _recall(self, module: nn.Module, name: str, original: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.occurrence or self._depth:
                return original(*args, **kwargs)
            results = self._recording.calls.get((module, name), ())
            turn = self._seen[module, name]
            self._seen[module, name] += 1
            if turn < len(results):
                result, random_state = results[turn]
                # What follows outside of modules (samplers) draws what it drew in the recorded
                # pass.
                if random_state is not None:
                    random_state.restore()
                return tree_map(self._isolate, result)
            self._depth += 1
            try:
                return original(*args, **kwargs)
            finally:
                self._depth -= 1

        return call

    @staticmethod
    def _rerun(module: nn.Module, name: str, original: Callable) -> Callable:
        return original


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
