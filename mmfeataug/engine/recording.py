# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What one pass leaves for its replays, and a replay of it."""

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from .guards import RandomState

if TYPE_CHECKING:
    from .tap import Tap


class TapError(ValueError):
    """A tap cannot work where it was put; the message names the path and the remedy."""


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

    def __init__(self, tap: 'Tap', live_prefix: bool = False) -> None:
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

    def at_tap(self, module: nn.Module, name: str, original: Callable) -> Callable:
        """What the tapped module calls instead of ``original`` while a pass is recorded."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._running and not self.fired:
                self.foreign = type(self._running[-1]).__name__
            if self.tap.side == 'output':
                return self.capture(original(*args, **kwargs))
            args, kwargs = self.capture((args, kwargs))
            return original(*args, **kwargs)

        return forward

    def around_call(self, module: nn.Module, name: str, original: Callable) -> Callable:
        """What modules before the tap call instead of ``original`` while a pass is recorded."""

        def call(*args: Any, **kwargs: Any) -> Any:
            outermost, before = not self._running, not self.fired
            if outermost:
                self.called.add(module)
            drawing = self.tap.drawing
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

    def at_tap(self, module: nn.Module, name: str, original: Callable) -> Callable:
        """What the tapped module calls instead of ``original`` in a replay."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._recording.tap.side == 'output':
                return self.substitute()
            args, kwargs = self.substitute()
            return original(*args, **kwargs)

        return forward

    def recall(self, module: nn.Module, name: str, original: Callable) -> Callable:
        """What modules before the tap call: recorded results, as long as there are any."""

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
    def rerun(module: nn.Module, name: str, original: Callable) -> Callable:
        """What they call if nothing is to be recalled."""
        return original
