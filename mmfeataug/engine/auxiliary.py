# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A second set of batch norms, for features of another distribution."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfeataug.utils.pytorch import before_load_state_dict

PREFIX = 'aux_bn'
"""Name of the second set in its owner: in a checkpoint's keys the owner is before it, and the first
norm's own key behind it."""
OWN_MODULES = 'feature_aug'
"""Name of what holds modules of augmentations in their owner."""


class AuxiliaryNorms(nn.Module):
    """Second batch norms of ``owner``, under the paths of the first ones.

    They begin as copies, also of what is loaded: a checkpoint without them gives both sets the same
    values, and weights that ``init_weights`` sets are copied after it.

    Args:
        owner: Gets this module as a child named ``aux_bn``.
        paths: Of its batch norms.
    """

    def __init__(self, owner: nn.Module, paths: Iterable[str]) -> None:
        super().__init__()
        # In a list, or the owner would become a child.
        self._owner = [owner]
        self.paths = list(paths)
        for path in self.paths:
            *parents, name = path.split('.')
            place: nn.Module = self
            for parent in parents:
                if parent not in place._modules:
                    place.add_module(parent, nn.Module())
                place = place._modules[parent]  # type: ignore[assignment]
            place.add_module(name, copy.deepcopy(owner.get_submodule(path)))
        owner.add_module(PREFIX, self)
        before_load_state_dict(owner, _fill_from_first)

    def pairs(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """First and second norm, for every path."""
        for path in self.paths:
            yield self._owner[0].get_submodule(path), self.get_submodule(path)

    def init_weights(self) -> None:
        """Copy the first norms; mmengine calls it after it has initialised them."""
        for first, second in self.pairs():
            second.load_state_dict(first.state_dict())


def _fill_from_first(owner: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    for key in owner._modules[PREFIX].state_dict():  # type: ignore[union-attr]
        second = f'{prefix}{PREFIX}.{key}'
        if second not in state_dict and prefix + key in state_dict:
            state_dict[second] = state_dict[prefix + key].clone()


def norms_behind(root: nn.Module, at: str, side: str = 'output') -> list[str]:
    """Paths of the batch norms registered behind a place, which models do in the order of their
    calls; without those of models inside that do not learn, such as the teacher of mmdet's
    SoftTeacher.

    Args:
        root: Model, or the part of it that ``at`` counts from.
        at: Path; ``'inputs'`` is before everything.
        side: Whether the place is behind the module itself or before it.
    """
    found, behind = [], at == 'inputs'
    teachers = tuple(
        f'{path}.'
        for path, part in root.named_children()
        if hasattr(part, 'parse_losses') and not any(p.requires_grad for p in part.parameters())
    )
    for path, module in root.named_modules():
        inside = path == at or path.startswith(f'{at}.') or at == ''
        if path == at:
            behind = True
        if PREFIX in path.split('.') or not isinstance(module, _BatchNorm):
            continue
        if path.startswith(teachers):
            continue
        if behind and not (inside and side == 'output') and module.track_running_stats:
            found.append(path)
    return found


def norm_pairs(model: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """All batch norms that have a second one, with it."""
    sets = [m for m in model.modules() if isinstance(m, AuxiliaryNorms)]
    return [pair for s in sets for pair in s.pairs()]


def has_auxiliary(state_dict: dict[str, Any]) -> bool:
    """Whether a checkpoint's weights have second norms."""
    return any(PREFIX in key.split('.') for key in state_dict)


def stock_state_dict(state_dict: dict[str, Any], aux_bn: bool = False) -> dict[str, Any]:
    """A checkpoint's weights with stock keys only.

    Args:
        state_dict: With or without second norms and modules of augmentations.
        aux_bn: Put the second norms in the place of the first.
    """
    stock, mark = dict(state_dict), f'{PREFIX}.'
    for key in state_dict:
        if OWN_MODULES in key.split('.'):
            del stock[key]
        elif PREFIX in key.split('.'):
            value = stock.pop(key)
            if aux_bn:
                stock[key.replace(mark, '', 1)] = value
    return stock
