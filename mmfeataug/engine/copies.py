# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Passes over copies of the batch, and the features that they leave."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .batch import Losses, detach_container
from .batch_augmentation import BatchAugmentation
from .checkpointing import refuse_checkpointed
from .guards import BatchNormGuard, RandomState, other_weights, wide
from .leaves import flatten, rebuild
from .paths import find_module
from .recorded_loss import RecordedLoss
from .tap import FiringError, at_side, entries, not_called, patched
from .tape import Source, Tape


class _EnoughSignal(BaseException):
    """Every feature that a pass was asked for is there. No ``Exception``: models catch these."""


@dataclass
class Captured:
    """What a pass leaves.

    Attributes:
        features: By module; in the graph of the pass, but for the clean one.
        sources: Of the clean pass, where the graph was cut at them.
        results: Of held modules, each with the random streams behind it.
    """

    features: dict[nn.Module, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    sources: dict[nn.Module, list[Source | None]] = field(default_factory=lambda: defaultdict(list))
    results: dict[nn.Module, list[tuple[Any, RandomState]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    @property
    def count(self) -> int:
        """Number of features."""
        return sum(map(len, self.features.values()))


class CopyTaps:
    """The places that one augmentation compares. Lives as long as the handle.

    Args:
        model: Whose passes they are.
        augmentation: Names the places.
        name: It is logged under.
    """

    def __init__(self, model: nn.Module, augmentation: BatchAugmentation, name: str) -> None:
        self.name, self.augmentation = name, augmentation
        self._modules = [find_module(model, path) for path in augmentation.paths]
        self._held = [find_module(model, path, 'hold') for path in augmentation.hold]
        self.was_reached = False

    def __str__(self) -> str:
        return ', '.join(self.augmentation.paths)

    @contextmanager
    def clean_pass(self, tape: Tape) -> Iterator[Captured]:
        """Within this context the clean pass is watched."""
        found = Captured()
        with patched(self._replacements(found, None, False, tape)):
            yield found

    def is_reached(self, clean: Captured) -> bool:
        """Whether the clean pass has left features at every place.

        Raises:
            TapError: If the first one has not.
        """
        for path, module in zip(self.augmentation.paths, self._modules, strict=True):
            if not clean.features[module]:
                if not self.was_reached:
                    raise not_called(path, module)
                return False
        self.was_reached = True
        return True

    @contextmanager
    def copy_pass(self, clean: Captured, stop: bool) -> Iterator[Captured]:
        """Within this context a pass over a copy is watched.

        Args:
            clean: What the clean pass left; what is held yields the same again.
            stop: End the pass at the last feature.
        """
        found = Captured()
        try:
            with patched(self._replacements(found, clean, stop)):
                yield found
        except _EnoughSignal:
            pass
        if found.count != clean.count:
            raise FiringError(
                f'{self.name}: a pass over a copy reached {self} {found.count} times, the clean '
                f'one {clean.count} times'
            )

    def features(self, captured: Captured) -> list[Tensor]:
        """The features in the order of the places."""
        return [f for module in self._modules for f in captured.features[module]]

    def sources(self, captured: Captured) -> list[Source | None]:
        """For each of :meth:`features` of the clean pass, where the graph was cut; None where
        nothing before needs a gradient.
        """
        return [source for module in self._modules for source in captured.sources[module]]

    def counts(self, captured: Captured) -> list[int]:
        """How many of :meth:`features` are of each place."""
        return [len(captured.features[module]) for module in self._modules]

    def _replacements(
        self, found: Captured, clean: Captured | None, stop: bool, tape: Tape | None = None
    ) -> Iterator[tuple[nn.Module, str, Callable]]:
        def at_tap(module: nn.Module, name: str, original: Callable) -> Callable:
            return at_side(self.augmentation.side, original, partial(capture, module))

        def capture(module: nn.Module, value: Any) -> Any:
            refuse_checkpointed(self)
            leaves = flatten(value)
            for i, leaf in enumerate(leaves):
                if isinstance(leaf, Tensor) and leaf.is_floating_point():
                    # Clones go on: an in-place operation behind the tap would overwrite what is
                    # compared.
                    if tape is None:
                        found.features[module].append(leaf)
                        leaves[i] = leaf.clone()
                    else:
                        leaves[i] = clean_capture(module, leaf, tape)
            if stop and clean is not None and found.count == clean.count:
                raise _EnoughSignal
            return rebuild(value, leaves)

        def clean_capture(module: nn.Module, leaf: Tensor, tape: Tape) -> Tensor:
            found.features[module].append(leaf.detach())
            (passed,), (source,) = (
                tape.cut([leaf]) if self.augmentation.online else ([leaf], [None])
            )
            found.sources[module].append(source)
            return passed.clone()

        inside: list[nn.Module] = []

        def held(module: nn.Module, name: str, original: Callable) -> Callable:
            def call(*args: Any, **kwargs: Any) -> Any:
                if module in inside:
                    return original(*args, **kwargs)
                refuse_checkpointed(', '.join(self.augmentation.hold))
                if clean is not None:
                    index = len(found.results[module])
                    if index == len(clean.results[module]):
                        raise FiringError(
                            f'hold={self.augmentation.hold!r}: it was called more often than in '
                            'the clean pass'
                        )
                    result, random_after = clean.results[module][index]
                    found.results[module].append((None, random_after))
                    random_after.restore()
                    return tree_map(detach_container, result)
                inside.append(module)
                try:
                    result = original(*args, **kwargs)
                finally:
                    inside.pop()
                kept = tree_map(detach_container, result)
                found.results[module].append((kept, RandomState()))
                return result

            return call

        for module in self._modules:
            yield module, 'forward', at_tap
        for module in self._held:
            for name in entries(module):
                yield module, name, held


@dataclass
class Copies:
    """Runs copies of one recorded batch; see :class:`CopyPass`.

    Attributes:
        reseed: Starts the global random streams anew behind a pass, see
            :meth:`Objective.seed_streams`.
        passes: Number of those over copies so far, with the model's own weights.
    """

    recorded: RecordedLoss
    taps: CopyTaps
    clean: Captured
    update_count: int
    teacher: dict[str, Tensor] | None
    shared: torch.Generator
    reseed: Callable[[], None]
    passes: int = 0

    def __post_init__(self) -> None:
        self.model, self.samples = self.recorded.model, self.recorded.batch.samples
        self.counts = self.taps.counts(self.clean)

    def __call__(
        self,
        images: Tensor,
        *,
        loss: bool = False,
        samples: Sequence[Any] | None = None,
        weights: dict[str, Tensor] | None = None,
        bn: str | None = None,
    ) -> Any:
        """A pass with the random draws of the clean one; see :class:`CopyPass`."""
        recorded, augmentation = self.recorded, self.taps.augmentation
        recorded.rewind()
        torch.clear_autocast_cache()
        policy = bn or (augmentation.bn if weights is None else 'eval')
        losses: Losses = {}
        with BatchNormGuard(self.model) as norms, other_weights(self.model, weights or {}):
            norms.apply(policy)
            with self.taps.copy_pass(self.clean, stop=not loss) as found:
                losses = recorded.batch.loss(images, samples=samples)
        self.reseed()
        features = [wide(f) for f in self.taps.features(found)]
        if weights is None:
            if augmentation.observer is not None:
                augmentation.observer(self.taps.features(self.clean), features, images, self.passes)
            self.passes += 1
        return (features, recorded.total_of(losses)) if loss else features
