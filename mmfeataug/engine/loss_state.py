# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What losses keep between calls, put back after an extra pass."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.weak import WeakTensorKeyDictionary

from .auxiliary import OWN_MODULES, PREFIX
from .kept import Kept, fingerprint_of, get_state, is_dense, set_state, substitute
from .places import GENERATORS, Namespace, Place, reached, same, spaces_of

SMALL = 2**18
"""Elements up to which a tensor is copied in each step, in case it changes."""
REFRESH = 50
"""Steps after which all places are looked for anew, whatever is known."""


@dataclass
class Saved:
    """State of the losses at one time; made by :class:`LossState`.

    Attributes:
        content: Of every place.
        kept: Tensors, by their identity.
        arrays, generators: Each with its state.
        swapped: Tensors that have changed since, of which a copy takes the place.
        in_place: What is written into tensors that stay themselves.
    """

    content: list[tuple[Place, list, list]]
    kept: dict[int, Kept] = field(default_factory=dict)
    arrays: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    generators: list[tuple[Any, Any]] = field(default_factory=list)
    swapped: dict[int, Kept] = field(default_factory=dict)
    in_place: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class LossState:
    """All that a call of ``loss()`` may change, apart from weights that learn and the running
    statistics of batch norms.

    Dynamic R-CNN keeps an IoU history, others moving averages, queues, prototypes, or a whole
    averaged network. Watched are attributes of modules and of helpers that they hold, at any depth:
    numbers, strings, containers, tensors, arrays, random generators, parameters without gradient.
    A large tensor is copied from the step on in which it first changes; in that one step, replays
    start from what the clean call has left of it.

    Args:
        model: All of its modules are watched.
        outside: Further namespaces that losses write into, without what they lead to.
    """

    def __init__(
        self, model: nn.Module, outside: Callable[[], Iterable[dict[str, Any]]] = tuple
    ) -> None:
        self._model, self._outside = model, outside
        self._roots: list[Place] = []
        self._places: list[Place] = []
        self._places_of: dict[int, tuple[Any, list[Place]]] = {}
        self._averaged: set[nn.Module] = set()
        self._known = WeakTensorKeyDictionary()
        self._steps = 0

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles learn anew.
        return dict(model=self._model, outside=self._outside)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def save(self) -> Saved:
        """What there is before the clean call."""
        saved = self._read(self._steps % REFRESH == 0)
        for tensor in self._tensors(saved):
            wanted = not self._steps or tensor.numel() <= SMALL or tensor in self._known
            learns = isinstance(tensor, nn.Parameter) and tensor.requires_grad
            copied = tensor in self._known if learns else wanted
            saved.kept[id(tensor)] = Kept(
                tensor,
                tensor.detach().clone() if copied else None,
                tensor._version,
                None if copied or learns else fingerprint_of(tensor),
            )
        self._steps += 1
        return saved

    def save_after(self, before: Saved) -> Saved:
        """What the clean call has left.

        Args:
            before: What it has found; learns what has changed since.
        """
        after = self._read()
        changed = self._changed(before)
        averaged = {
            root
            for root in self._frozen
            if root in self._averaged or any(id(p) in changed for p in root.parameters())
        }
        self._averaged |= averaged
        statistics = {
            id(buffer)
            for root in averaged
            for m in root.modules()
            if isinstance(m, _BatchNorm)
            for buffer in m.buffers(recurse=False)
        }
        memories = set()
        for key in changed:
            kept = before.kept[key]
            self._known[kept.tensor] = True
            if kept.value is None:
                kept.value = kept.tensor.detach().clone()
            if not isinstance(kept.tensor, nn.Parameter) and key not in self._norms:
                memories.add(kept.memory)
        for key, kept in before.kept.items():
            stays = isinstance(kept.tensor, nn.Parameter) or key in self._norms
            if not stays and memories and kept.memory in memories:
                if kept.value is None:
                    kept.value = kept.tensor.detach().clone()
                before.swapped[key] = kept
            elif key in self._norms and key not in statistics:
                continue
            elif kept.value is not None and is_dense(kept.tensor):
                before.in_place.append((kept.tensor, kept.value))
                now = kept.tensor.detach().clone() if key in changed else kept.value
                after.in_place.append((kept.tensor, now))
        after.in_place += [
            (tensor, tensor.detach().clone())
            for tensor in self._tensors(after)
            if id(tensor) not in before.kept and tensor.numel() <= SMALL and is_dense(tensor)
        ]
        return after

    def restore(self, saved: Saved) -> None:
        """Put back what was saved.

        Containers are filled anew and stay themselves. A tensor that the clean call has changed is
        there itself after it, and for other passes a copy of what it held takes its place, because
        graphs may need what is there now. Tensors that share memory still do.
        """
        memories: dict[int, torch.UntypedStorage] = {}
        copies = {key: kept.copy(memories) for key, kept in saved.swapped.items()}
        for copy in copies.values():
            # It may stay, where what is restored last is what was before.
            self._known[copy] = True
        for place, content, leaves in saved.content:
            if copies and any(id(leaf) in copies for leaf in leaves):
                content = substitute(content, copies)
            if not same(place.read(), content):
                place.write(content)
        for tensor, value in saved.in_place:
            # Past the version counter: graphs of other passes may have saved it.
            if tensor.shape == value.shape:
                tensor.data.copy_(value)
            else:
                tensor.data = value.clone()
        for array, held in saved.arrays:
            if array.shape != held.shape:
                array.resize(held.shape, refcheck=False)
            array[...] = held
        for generator, state in saved.generators:
            set_state(generator, state)

    def _read(self, anew: bool = False) -> Saved:
        if anew:
            self._look()
        led_on = [anew or place.refresh() for place in self._places]
        if anew or any(led_on):
            self._places = reached(self._roots, self._places_of, self._modules)
        outside = [Namespace(space) for space in self._outside()]
        saved = Saved([(p, p.content, p.leaves) for p in self._places])
        saved.content += [(p, p.content, []) for p in outside]
        for place in self._places:
            for leaf in place.leaves:
                if isinstance(leaf, np.ndarray):
                    if leaf.flags.writeable:
                        saved.arrays.append((leaf, leaf.copy()))
                elif isinstance(leaf, GENERATORS):
                    saved.generators.append((leaf, get_state(leaf)))
        return saved

    def _look(self) -> None:
        """Find all modules."""
        modules = [
            m
            for path, m in self._model.named_modules()
            if not {OWN_MODULES, PREFIX} & set(path.split('.'))
        ]
        self._frozen = list(_frozen_roots(self._model))
        in_frozen = {m for root in self._frozen for m in root.modules()}
        norms = [m for m in modules if isinstance(m, _BatchNorm)]
        self._norms = {id(b) for m in norms for b in m.buffers(recurse=False)}

        self._roots = [
            Namespace(space)
            for module in modules
            for space in spaces_of(module)
            if space is not module._buffers
            or not isinstance(module, _BatchNorm)
            or (module in in_frozen and module.training)
        ]
        # Alive as long as their identities are known.
        self._held = [*self._model.modules(), *(b for m in norms for b in m.buffers(recurse=False))]
        self._modules = {id(m) for m in self._model.modules()}
        self._places_of.clear()

    def _tensors(self, saved: Saved) -> Iterator[Tensor]:
        seen: set[int] = set()
        for _, _, leaves in saved.content:
            for leaf in leaves:
                if not isinstance(leaf, Tensor) or id(leaf) in seen:
                    continue
                seen.add(id(leaf))
                odd = leaf.is_meta or leaf.is_nested or leaf.is_quantized or leaf.is_inference()
                if leaf.layout == torch.strided and not odd:
                    yield leaf

    def _changed(self, before: Saved) -> set[int]:
        changed: set[int] = set()
        open_keys: list[int] = []
        flags: list[Tensor] = []
        for key, kept in before.kept.items():
            shape = kept.tensor.shape if kept.value is None else kept.value.shape
            if kept.tensor._version != kept.version or kept.tensor.shape != shape:
                changed.add(key)
            elif kept.value is not None:
                open_keys.append(key)
                flags.append((kept.tensor.detach() != kept.value).any())
            elif kept.fingerprint is not None:
                open_keys.append(key)
                flags.append((fingerprint_of(kept.tensor) != kept.fingerprint).any())
        # One wait for each device.
        for device in {flag.device for flag in flags}:
            here = [(k, f) for k, f in zip(open_keys, flags, strict=True) if f.device == device]
            found = torch.stack([f for _, f in here]).tolist()
            changed |= {k for (k, _), yes in zip(here, found, strict=True) if yes}
        return changed


def _frozen_roots(module: nn.Module) -> Iterator[nn.Module]:
    """The topmost modules that have parameters, none of which learns."""
    learn = [p.requires_grad for p in module.parameters()]
    if learn and not any(learn):
        yield module
    elif learn:
        for child in module.children():
            yield from _frozen_roots(child)
