# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What one pass leaves at a tap."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .checkpointing import is_checkpointed, refuse_checkpointed
from .guards import RandomState
from .leaves import flatten, map_leaves, rebuild
from .tap import Tap, TapError, at_side, patched
from .tape import Cut, Source, Tape, hold


@dataclass
class Firing:
    """One value that passed the tap.

    Attributes:
        value: As it was, out of the graph.
        slots: Index of the feature in :attr:`Recording.features` for each leaf, or None.
        random: The random streams at that moment.
    """

    value: Any
    slots: list[int | None]
    random: RandomState


@dataclass
class Result:
    """What a module before the tap returned.

    Attributes:
        value: Out of the graph.
        passed: Its leaves as they went on, with their versions at that time.
        sources: For each leaf where a gradient at it goes, or None.
        random: The random streams behind the call, if it drew from them.
    """

    value: Any
    passed: list[tuple[Any, int]]
    sources: list[Source | None]
    random: RandomState | None


class Recording:
    """One recorded pass of one tap. Lives for one iteration; made by :func:`record`.

    Attributes:
        features: Every float tensor that passed the tap, in call order, detached.
        sources: Where a gradient at each of them goes; None where nothing is differentiated.
        firings: The values that passed.
        results: What the prefix returned, by module and entry point, in call order.
        foreign: Name of a module that was running when the tap fired although it does not contain
            it, or None.
    """

    def __init__(self, tap: Tap, tape: Tape) -> None:
        self.tap, self._tape = tap, tape
        self.features: list[Tensor] = []
        self.sources: list[Source | None] = []
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
        """Number of the first cut at this tap on the tape; behind all where gradients were off."""
        ours, cuts = set(self.sources), self._tape.cuts
        return next((i for i, c in enumerate(cuts) if not ours.isdisjoint(c.sources)), len(cuts))

    def gradients(self) -> list[Tensor | None]:
        """What has arrived at each feature from the clean loss; to be asked for once, before views
        are made.
        """
        return [source.arrived() if source else None for source in self.sources]

    def capture(self, value: Any) -> Any:
        """Take note of a value at the tap; returns what the pass has to go on with.

        Raises:
            TapError: If ``value`` holds no floating-point tensor.
        """
        refuse_checkpointed(self.tap)
        leaves = flatten(value)
        self._follow_writes()
        passed, sources = self._tape.cut(leaves, at_tap=True)
        known: dict[int, int] = {}
        numbers: list[int | None] = []
        for leaf, source in zip(leaves, sources, strict=True):
            if not (isinstance(leaf, Tensor) and leaf.is_floating_point()):
                numbers.append(None)
                continue
            if id(leaf) not in known:
                known[id(leaf)] = len(self.features)
                # A clone is kept: what goes on may be written into.
                self.features.append(leaf.detach().clone())
                self.sources.append(source)
            numbers.append(known[id(leaf)])
        if not known:
            raise TapError(
                f'tap at {self.tap}: the module yields no floating-point tensor '
                f'({type(value).__name__}); tap a module that yields features'
            )
        # What passes beside the features, such as a mask, may be written into as well.
        kept = map_leaves(
            value, lambda v: v.detach().clone() if _is_beside(v) else self._isolate_leaf(v)
        )
        self.firings.append(Firing(kept, numbers, RandomState()))
        return rebuild(value, passed)

    def _follow_writes(self) -> None:
        """What was written into recorded results since, such as by ``ReLU(inplace=True)``, stands
        between them and a gradient that arrives there in a replay. Not where copies are recorded:
        what runs between modules writes into these again in each replay.
        """
        late = Cut()
        for results in self.results.values():
            for result in results:
                for i, (leaf, version) in enumerate(result.passed):
                    written = not self.tap.copy_records and result.sources[i] is not None
                    if written and leaf._version != version:
                        late.sources.append(Source(hold(leaf) if leaf.requires_grad else None))
                        result.sources[i] = late.sources[-1]
                result.passed.clear()
        if late.sources:
            self._tape.cuts.append(late)

    def isolate(self, value: Any) -> Any:
        """A recorded value as a replay may have it: out of the graph, in containers of its own, and
        out of reach where that is needed.
        """
        return map_leaves(value, self._isolate_leaf)

    def _isolate_leaf(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.detach().clone() if self.tap.copy_records else leaf.detach()

    def version(self) -> int:
        """Grows when an operation changes a recorded tensor in place."""
        results = [result for records in self.results.values() for result in records]
        tensors = [t for r in results for t in flatten(r.value) if isinstance(t, Tensor)]
        return sum(t._version for t in tensors)

    def at_tap(self, module: nn.Module, name: str, original: Callable) -> Callable:
        """What the tapped module calls instead of ``original`` while a pass is recorded."""

        def capture(value: Any) -> Any:
            if self._running and not self.fired:
                self.foreign = type(self._running[-1]).__name__
            return self.capture(value)

        return at_side(self.tap.side, original, capture)

    def around_call(self, module: nn.Module, name: str, original: Callable) -> Callable:
        """What modules before the tap call instead of ``original`` while a pass is recorded."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if is_checkpointed():
                return original(*args, **kwargs)
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
            passed, sources = self._tape.cut(flatten(value))
            versions = [(p, p._version if isinstance(p, Tensor) else 0) for p in passed]
            self.results[module, name].append(Result(self.isolate(value), versions, sources, after))
            return rebuild(value, passed)

        return call


def _is_beside(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and not leaf.is_floating_point()


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
