# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Places as users write them: paths of modules, lists of them, and patterns."""

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from mmfeataug.utils.settings import Fix, SettingError, check_flags, explained

from .augmentation import Augmentation
from .batch_augmentation import BatchAugmentation


class TapError(SettingError):
    """A tap cannot work where it was put; the message names the path and the remedy."""


def build_each(
    model: nn.Module, entry: dict[str, Any], registry: Any
) -> list[tuple[dict[str, Any], Augmentation]]:
    """The augmentations of one config, each with a config of its own; see :func:`spread`.

    Args:
        model: That ``at`` counts from; ``''`` is the model itself.
        entry: With a ``type``.
        registry: Of the methods, of mmengine's class.

    Raises:
        TypeError: For settings that the method does not have, or that have to be True or False.
    """
    kind = entry.get('type')
    kind = registry.get(kind) if isinstance(kind, str) else kind
    if isinstance(kind, type):
        check_flags(kind, entry)
    # What is no method, the registry refuses.
    singles = spread(model, entry, kind) if isinstance(kind, type) else [entry]
    made = []
    for single in singles:
        # A place needs a name while the config is read. With our scope, so that the framework's
        # default scope (mmdet, mmseg) has no say in the look-up.
        named = {**single, 'at': '.'} if single.get('at') == '' else single
        try:
            made.append((single, registry.build({'_scope_': 'mmfeataug', **named})))
        except TypeError as error:
            better = explained(kind, error) if isinstance(kind, type) else None
            if better is None:
                raise
            raise better from error
    return made


def spread(model: nn.Module, entry: dict[str, Any], kind: type[Augmentation]) -> list[dict]:
    """The config of an augmentation, once for each place that its ``at`` names.

    One that compares places has them all at once; any other is there once for each.

    Args:
        model: Whose modules are meant.
        entry: With ``at`` as a path, a pattern or a list of both; without it, the method's default
            is a path.
        kind: Class of the augmentation.

    Raises:
        TapError: If a pattern matches nothing, or several where one place is asked for.
        TypeError: If ``at`` is something else.
    """
    at = entry.get('at')
    if isinstance(at, str) and not is_pattern(at):
        return [entry]
    if at is None:
        return [entry]
    paths = places(model, at)
    if not issubclass(kind, BatchAugmentation):
        return [{**entry, 'at': path} for path in paths]
    if kind.one_place and len(paths) > 1:
        raise TapError(
            f'at={at!r}: {kind.__name__} looks at one place, this names {len(paths)} '
            f'({_some(paths)}): name one'
        )
    return [{**entry, 'at': paths[0] if kind.one_place else paths}]


def places(model: nn.Module, at: str | Sequence[str]) -> list[str]:
    """The paths that ``at`` names, each once, in its order; those of a pattern in the order of
    ``model.named_modules()``. Whether a path exists is not asked.

    Raises:
        TapError: If a pattern matches nothing.
        TypeError: If ``at`` is neither text nor a list of it.
    """
    each = (at,) if isinstance(at, str) else at
    if not isinstance(each, (list, tuple)) or not all(isinstance(a, str) for a in each) or not each:
        raise TypeError(
            f"at={at!r}: give a module path such as 'backbone.layer2', a pattern such as "
            "'backbone.layer[12]', a list of these, or 'inputs'"
        )
    found: list[str] = []
    for path in each:
        found += _matches(model, path) if is_pattern(path) else [path]
    return list(dict.fromkeys(found))


def is_pattern(path: str) -> bool:
    """Whether it has a character that :mod:`fnmatch` gives a meaning to."""
    return any(c in path for c in '*?[')


def _matches(model: nn.Module, pattern: str) -> list[str]:
    """Modules whose path matches part by part, so that ``*`` stays between two dots."""
    parts = pattern.split('.')
    names = [name for name, _ in model.named_modules() if name]
    reached = {''}
    for i, part in enumerate(parts, 1):
        below = [n for n in names if n.count('.') == i - 1 and n.rpartition('.')[0] in reached]
        found = [n for n in below if fnmatchcase(n.rpartition('.')[2], part)]
        if not found:
            near = difflib.get_close_matches(pattern, names, n=3)
            children = dict.fromkeys(n.rpartition('.')[2] for n in below)
            raise TapError(
                f'at={pattern!r}: nothing matches this pattern. Its part {part!r} was matched '
                f'against {_some(list(children)) or "nothing"}'
                f'{f", below {_some(sorted(reached))}" if i > 1 else ""} (* and ? stay between two '
                f'dots). Nearest: {", ".join(near) or "none"}. '
                'tools/analysis_tools/list_taps.py CONFIG prints every place',
                _nearest(pattern, near),
            )
        reached = set(found)
    return [name for name in names if name in reached]


def _some(names: Sequence[str], most: int = 12) -> str:
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def find_module(model: nn.Module, path: str, setting: str = 'at') -> nn.Module:
    """The module at a dotted path, which a setting gives.

    Raises:
        TapError: With the nearest existing paths if there is none.
    """
    # A module may have several paths.
    modules = dict(model.named_modules(remove_duplicate=False))
    if path and path in modules:
        return modules[path]
    # The stand-in of a config's empty path.
    path = '' if path == '.' else path
    if is_pattern(path):
        raise TapError(
            f'{setting}={path!r}: a pattern may name several places, each for an augmentation of '
            'its own: give the augmentation as a config, dict(type=..., at=...), or the path of '
            'one place'
        )
    parent = path
    while parent and parent not in modules:
        parent = parent.rpartition('.')[0]
    children = [f'{parent}.{n}'.lstrip('.') for n, _ in modules[parent].named_children()]
    # What counts from a part of the model, then what is misspelt.
    near = [name for name in modules if name.endswith(f'.{path}')][:3]
    near = near or difflib.get_close_matches(path, modules, n=3)
    shown = ', '.join(near or children[:12]) or 'none'
    raise TapError(
        f'{setting}={path!r}: the model has no such module. Nearest: {shown}; '
        f'below {parent or "the model"!r}: {", ".join(children[:12]) or "nothing"}. '
        'tools/analysis_tools/list_taps.py CONFIG prints every place',
        _nearest(path, near) if setting == 'at' else None,
    )


def _nearest(path: str, names: Sequence[str]) -> Fix | None:
    return Fix('augmentation', 'at', names[0], path) if names else None
