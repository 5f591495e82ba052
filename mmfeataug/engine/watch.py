# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The features that whole passes leave, over the batch and over copies of it."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from .augmentation import BatchAugmentation
from .batch import own
from .guards import RandomState
from .recording import TapError
from .tap import ENTRY_POINTS, find_module, patched


class _EnoughError(Exception):
    """Every feature that a pass was asked for is there."""


@dataclass
class Seen:
    """What a pass leaves: features in the autograd graph, and results of held modules."""

    features: dict[nn.Module, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    results: dict[nn.Module, list[tuple[Any, RandomState]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    random_at_start: RandomState = field(default_factory=RandomState)

    @property
    def count(self) -> int:
        """Number of features."""
        return sum(map(len, self.features.values()))


class Watch:
    """Looks at places of a model during its passes. Lives as long as the handle.

    Args:
        model: Whose passes they are.
        augmentation: Names the places.
        name: It is logged under.
    """

    def __init__(self, model: nn.Module, augmentation: BatchAugmentation, name: str) -> None:
        self.name, self.augmentation = name, augmentation
        self._modules = [find_module(model, path) for path in augmentation.places]
        self._held = [find_module(model, path) for path in augmentation.hold]

    def __str__(self) -> str:
        return ', '.join(self.augmentation.places)

    @contextmanager
    def clean_pass(self) -> Iterator[Seen]:
        """Within this context the clean pass is watched."""
        seen = Seen()
        with patched(self._replacements(seen, None, False)):
            yield seen
        for path, module in zip(self.augmentation.places, self._modules, strict=True):
            if not seen.features[module]:
                raise TapError(
                    f'at={path!r}: this module was not called in the training pass, or yields no '
                    'floating-point tensor; tools/analysis_tools/list_taps.py CONFIG prints every '
                    'place'
                )

    @contextmanager
    def copy_pass(self, clean: Seen, stop: bool) -> Iterator[Seen]:
        """Within this context a pass over a copy is watched, with the draws of the clean one.

        Args:
            clean: What that left; what is held yields the same again.
            stop: End the pass at the last feature.
        """
        seen = Seen()
        clean.random_at_start.restore()
        try:
            with patched(self._replacements(seen, clean, stop)):
                yield seen
        except _EnoughError:
            pass
        if seen.count != clean.count:
            raise TapError(
                f'{self.name}: a pass over a copy reached {self} {seen.count} times, the clean one '
                f'{clean.count} times'
            )

    def features(self, seen: Seen) -> list[Tensor]:
        """The features in the order of the places, as the pass left them."""
        return [f for module in self._modules for f in seen.features[module]]

    def counts(self, seen: Seen) -> list[int]:
        """How many :meth:`features` are of each place."""
        return [len(seen.features[module]) for module in self._modules]

    def _replacements(
        self, seen: Seen, clean: Seen | None, stop: bool
    ) -> Iterator[tuple[nn.Module, str, Callable]]:
        def at_tap(module: nn.Module, name: str, original: Callable) -> Callable:
            def forward(*args: Any, **kwargs: Any) -> Any:
                if self.augmentation.side == 'output':
                    return capture(module, original(*args, **kwargs))
                args, kwargs = capture(module, (args, kwargs))
                return original(*args, **kwargs)

            return forward

        def capture(module: nn.Module, value: Any) -> Any:
            leaves, spec = tree_flatten(value)
            for i, leaf in enumerate(leaves):
                if isinstance(leaf, Tensor) and leaf.is_floating_point():
                    seen.features[module].append(leaf)
                    # An in-place operation behind the tap would overwrite what is compared.
                    leaves[i] = leaf.clone()
            if stop and clean is not None and seen.count == clean.count:
                raise _EnoughError
            return tree_unflatten(leaves, spec)

        inside: list[nn.Module] = []

        def held(module: nn.Module, name: str, original: Callable) -> Callable:
            def call(*args: Any, **kwargs: Any) -> Any:
                if module in inside:
                    return original(*args, **kwargs)
                if clean is not None:
                    turn = len(seen.results[module])
                    result, random_after = clean.results[module][turn]
                    seen.results[module].append((None, random_after))
                    random_after.restore()
                    return tree_map(own, result)
                inside.append(module)
                try:
                    result = original(*args, **kwargs)
                finally:
                    inside.pop()
                seen.results[module].append((tree_map(own, result), RandomState()))
                return result

            return call

        for module in self._modules:
            yield module, 'forward', at_tap
        for module in self._held:
            for name in ENTRY_POINTS:
                method = getattr(type(module), name, None)
                if callable(method) and method is not nn.Module.forward:
                    yield module, name, held
