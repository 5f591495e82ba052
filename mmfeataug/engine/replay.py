# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The rest of a pass, replayed from a tap.

A replay calls the same function as the recorded pass. Whatever was computed before the tap returns
what was recorded, the tap yields the features it is given, and what follows runs as usual. No
network is split by hand.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .checkpointing import is_checkpointed
from .leaves import flatten, rebuild
from .recording import Recording, Result
from .tap import FiringError, patched
from .tape import Source, Tape

_NARROW = (torch.float16, torch.bfloat16)


class Replay:
    """One pass from given features; made by :func:`replay`.

    Attributes:
        firing: How often the tap was reached so far.
        received: With a tape: gradients at recorded results, with where they go.
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
        self.received: list[tuple[Source, Tensor]] = []

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
        # Clones: the same features may be replayed again, and so may what passed beside them.
        leaves = [
            self._features[slot].clone()
            if slot is not None
            else kept.clone()
            if isinstance(kept, Tensor)
            else kept
            for kept, slot in zip(flatten(firing.value), firing.slots, strict=True)
        ]
        return rebuild(firing.value, leaves)

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
            if self.firing or self._depth or is_checkpointed():
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
        gated: dict[Source, Tensor] = {}
        leaves = []
        value = self._recording.isolate(result.value)
        for leaf, source in zip(flatten(value), result.sources, strict=True):
            if self._widen and isinstance(leaf, Tensor) and leaf.dtype in _NARROW:
                leaf = leaf.float()
            if self._tape is not None and source is not None and torch.is_grad_enabled():
                if source not in gated:
                    gated[source] = self._tape.gate(leaf, partial(self._receive, source))
                leaf = gated[source]
            leaves.append(leaf)
        return rebuild(value, leaves)

    def _receive(self, source: Source, gradient: Tensor) -> None:
        self.received.append((source, gradient))


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
    around = found.recall if memoize else None
    with patched(recording.tap.replacements(around, found.at_tap)):
        yield found
