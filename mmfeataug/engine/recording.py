# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What one pass leaves at a tap, and a replay of the rest of the pass from there.

A replay calls the same function as the recorded pass. Whatever was computed before the tap returns
what was recorded, the tap yields the features it is given, and what follows runs as usual. No
network is split by hand.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from .guards import RandomState
from .tap import FiringError, Tap, TapError, patched
from .tape import Cut, Tape


@dataclass
class Firing:
    """One value that passed the tap.

    Attributes:
        leaves: Of the value; None where a feature was.
        spec: Its structure.
        slots: Index of the feature in :attr:`Recording.features` for each leaf, or None.
        random: The random streams at that moment.
    """

    leaves: list[Any]
    spec: Any
    slots: list[int | None]
    random: RandomState


@dataclass
class Result:
    """What a module before the tap returned.

    Attributes:
        leaves, spec: Of the value, out of the graph.
        cut, slots: Where the graph was cut at it, and which leaf is which tensor there.
        random: The random streams behind the call, if it drew from them.
    """

    leaves: list[Any]
    spec: Any
    cut: Cut
    slots: list[int | None]
    random: RandomState | None


class Recording:
    """One recorded pass of one tap. Lives for one iteration; made by :func:`record`.

    Attributes:
        features: Every float tensor that passed the tap, in call order, detached.
        cut_of: For each of them the cut, and its index there.
        firings: The values that passed.
        results: What the prefix returned, by module and entry point, in call order.
        foreign: Name of a module that was running when the tap fired although it does not contain
            it, or None.
    """

    def __init__(self, tap: Tap, tape: Tape) -> None:
        self.tap, self._tape = tap, tape
        self.features: list[Tensor] = []
        self.cut_of: list[tuple[Cut, int]] = []
        self.firings: list[Firing] = []
        self.results: dict[tuple[nn.Module, str], list[Result]] = defaultdict(list)
        self.drawing: set[nn.Module] = set()
        self.called: set[nn.Module] = set()
        self.foreign: str | None = None
        self._running: list[nn.Module] = []

    @property
    def fired(self) -> bool:
        """Whether the pass has reached the tap."""
        return bool(self.firings)

    @property
    def first_cut(self) -> int:
        """Number of the first cut at this tap on the tape."""
        return self._tape.cuts.index(self.cut_of[0][0])

    @property
    def gradients(self) -> list[Tensor | None]:
        """What has arrived at each feature from the clean loss; call it before views are made."""
        return [(cut.arrived or cut.gradients)[index] for cut, index in self.cut_of]

    def capture(self, value: Any) -> Any:
        """Take note of a value at the tap; returns what the pass has to go on with.

        Raises:
            TapError: If ``value`` holds no floating-point tensor.
        """
        leaves, spec = tree_flatten(value)
        cut = Cut(at_tap=True)
        known: dict[int, int] = {}
        kept: list[Any] = []
        slots: list[int | None] = []
        passed: list[Any] = []
        for leaf in leaves:
            if not (isinstance(leaf, Tensor) and leaf.is_floating_point()):
                kept.append(self.isolate(leaf))
                slots.append(None)
                passed.append(leaf)
                continue
            if id(leaf) not in known:
                known[id(leaf)] = len(self.features)
                index = len(cut.sources)
                # Where the prefix is frozen there is no source, but a gradient all the same.
                cut.sources.append(leaf if leaf.requires_grad else None)
                cut.gradients.append(None)
                self.cut_of.append((cut, index))
                self.features.append(leaf.detach())
            slot = known[id(leaf)]
            kept.append(None)
            slots.append(slot)
            # A clone goes on: an in-place operation behind the tap would overwrite the feature.
            clone = self.features[slot].clone()
            gated = torch.is_grad_enabled()
            receive = partial(cut.receive, self.cut_of[slot][1])
            passed.append(self._tape.gate(clone, receive) if gated else clone)
        if not known:
            raise TapError(
                f'tap at {self.tap}: the module yields no floating-point tensor '
                f'({type(value).__name__}); tap a module that yields features'
            )
        self._tape.cuts.append(cut)
        self.firings.append(Firing(kept, spec, slots, RandomState()))
        return tree_unflatten(passed, spec)

    def isolate(self, value: Any) -> Any:
        """A recorded value as a replay may have it: out of the graph, and out of reach where that
        is needed.
        """
        # Duck-typed on purpose: a Tensor and mmengine's data elements both return a detached copy
        # of the container.
        if hasattr(value, 'detach'):
            value = value.detach()
        return value.clone() if self.tap.copy_records and hasattr(value, 'clone') else value

    def version(self) -> int:
        """Grows when an operation changes a recorded tensor in place."""
        results = [result for records in self.results.values() for result in records]
        tensors = [t for r in results for t in r.leaves if isinstance(t, Tensor)]
        return sum(t._version for t in tensors)

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
            may_draw = name != 'forward' or drawing is None or module in drawing
            state = RandomState() if outermost and before and may_draw else None
            self._running.append(module)
            try:
                value = original(*args, **kwargs)
            finally:
                self._running.pop()
            if not (outermost and before) or self.fired:
                return value
            after = RandomState() if state else None
            if after is not None and after != state:
                self.drawing.add(module)
            leaves, spec = tree_flatten(value)
            passed, cut, slots = self._tape.cut(leaves)
            kept = [self.isolate(leaf) for leaf in leaves]
            self.results[module, name].append(Result(kept, spec, cut, slots, after))
            return tree_unflatten(passed, spec)

        return call


class Replay:
    """One pass from given features; made by :func:`replay`.

    Attributes:
        firing: How often the tap was reached so far.
        received: With ``live``: gradients at recorded results, as ``(cut, index, gradient)``.
    """

    def __init__(
        self,
        recording: Recording,
        features: list[Tensor],
        on_fire: Callable[[], None],
        tape: Tape | None = None,
        widen: bool = False,
    ) -> None:
        self._recording, self._features = recording, features
        self._on_fire, self._tape, self._widen = on_fire, tape, widen
        self._depth = 0
        self._calls: dict[tuple[nn.Module, str], int] = defaultdict(int)
        self.firing = 0
        self.received: list[tuple[Cut, int, Tensor]] = []

    def substitute(self) -> Any:
        """What goes on from the tap in place of what the module yields.

        Raises:
            FiringError: If the tap is reached more often than in the recorded pass.
        """
        recording = self._recording
        if self.firing == len(recording.firings):
            raise FiringError(
                f'tap at {recording.tap} was reached more often than in the clean pass'
            )
        firing = recording.firings[self.firing]
        firing.random.restore()
        self.firing += 1
        if self.firing == 1:
            self._on_fire()
        # Clones, as in the recorded pass: the same features may be replayed again.
        leaves = [
            kept if slot is None else self._features[slot].clone()
            for kept, slot in zip(firing.leaves, firing.slots, strict=True)
        ]
        return tree_unflatten(leaves, firing.spec)

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
            if self.firing or self._depth:
                return original(*args, **kwargs)
            results = self._recording.results.get((module, name), ())
            index = self._calls[module, name]
            self._calls[module, name] += 1
            if index < len(results):
                result = results[index]
                # What follows outside of modules (samplers) draws what it drew in the recorded
                # pass.
                if result.random is not None:
                    result.random.restore()
                return self._recalled(result)
            self._depth += 1
            try:
                return original(*args, **kwargs)
            finally:
                self._depth -= 1

        return call

    def _recalled(self, result: Result) -> Any:
        gated: dict[int, Tensor] = {}
        leaves = []
        for leaf, slot in zip(result.leaves, result.slots, strict=True):
            leaf = self._recording.isolate(leaf)
            if self._widen and isinstance(leaf, Tensor) and leaf.dtype in _NARROW:
                leaf = leaf.float()
            if self._tape is not None and slot is not None and torch.is_grad_enabled():
                if slot not in gated:
                    receive = partial(self._receive, result.cut, slot)
                    gated[slot] = self._tape.gate(leaf, receive)
                leaf = gated[slot]
            leaves.append(leaf)
        return tree_unflatten(leaves, result.spec)

    def _receive(self, cut: Cut, index: int, gradient: Tensor) -> None:
        self.received.append((cut, index, gradient))

    @staticmethod
    def rerun(module: nn.Module, name: str, original: Callable) -> Callable:
        """What they call if nothing is to be recalled."""
        return original


_NARROW = (torch.float16, torch.bfloat16)


@contextmanager
def record(tap: Tap, tape: Tape) -> Iterator[Recording]:
    """Within this context one pass is recorded at a tap.

    Args:
        tap: Its first pass narrows down what can run before it.
        tape: The graph is cut there at the features, and at all that was computed before them.
    """
    recording = Recording(tap, tape)
    with patched(tap.replacements(recording.around_call, recording.at_tap)):
        yield recording
    if tap.drawing is None and recording.fired:
        tap.drawing = recording.drawing
        nested = {child for m in recording.called for child in m.modules() if child is not m}
        tap.prefix = [m for m in tap.prefix if m not in nested]


@contextmanager
def replay(
    recording: Recording,
    features: list[Tensor],
    on_fire: Callable[[], None],
    *,
    memoize: bool = True,
    tape: Tape | None = None,
    widen: bool = False,
) -> Iterator[Replay]:
    """Within this context a pass starts from ``features`` at the tap.

    Args:
        recording: What :func:`record` saw for the same batch.
        features: One tensor for each of ``recording.features``, same shapes.
        on_fire: Called when the tap is reached for the first time.
        memoize: False runs the modules before the tap again instead of returning what was
            recorded.
        tape: Given, gradients at recorded results are received; None makes these constants.
        widen: Return recorded results of a narrow type as float32, for a pass outside autocast.
    """
    found = Replay(recording, features, on_fire, tape, widen)
    around = found.recall if memoize else found.rerun
    with patched(recording.tap.replacements(around, found.at_tap)):
        yield found
