# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Checks of what a config says, and what would mend it."""

import difflib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DECLARE = 'declare'
"""Key of a fix: the augmentation belongs into the model's config, not into that of the hook."""
MERGE = 'merge'
"""Key of a fix: a second hook gives its augmentations to the first."""


@dataclass(frozen=True)
class Fix:
    """A setting that would mend a fault.

    Attributes:
        owner: ``'config'``, ``'hook'`` (FeatureAugHook) or ``'augmentation'``.
        key: Of the setting in its owner; dotted where the owner is the config.
        value: To set.
        at: Place of the augmentation, as its config or the model has it.
        kind: Name of its class; empty where the place says enough.
    """

    owner: str
    key: str
    value: Any
    at: str = ''
    kind: str = ''


class SettingError(ValueError):
    """A setting that cannot be.

    Attributes:
        fix: What would mend it; None where only the user can know.
    """

    def __init__(self, message: str, fix: Fix | None = None) -> None:
        super().__init__(message)
        self.fix = fix


def explained(kind: type, error: TypeError) -> TypeError | None:
    """What a constructor says of a setting it does not have, with the nearest that it has; None if
    its error is another.
    """
    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if found is None or found[1] not in [cls.__name__ for cls in kind.__mro__]:
        return None
    known = _settings_of(kind)
    near = difflib.get_close_matches(found[2], known, 1)
    hint = f'the nearest is {near[0]}' if near else f'it has {", ".join(known)}'
    return TypeError(f'{kind.__name__} has no setting {found[2]!r}: {hint}')


def check_flags(kind: type, settings: Mapping[str, Any]) -> None:
    """Refuse anything but True and False for the settings of a constructor that are annotated so:
    any text, such as 'no', would count as True.

    Raises:
        TypeError: See :func:`flag`.
    """
    for name, annotation in _settings_of(kind).items():
        given = settings.get(name)
        if given is not None and annotation in (bool, bool | None):
            flag(name, given, settings.get('at'))


def _settings_of(kind: type) -> dict[str, Any]:
    """What a constructor takes by name, with the annotations."""
    known: dict[str, Any] = {}
    for cls in kind.__mro__:
        parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
        for p in parameters:
            if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != 'self':
                known.setdefault(p.name, p.annotation)
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            # It hands nothing on.
            break
    return known


def flag(name: str, value: bool, at: object = None) -> bool:
    """True or False.

    Raises:
        TypeError: Naming the setting, its value and its place, if it has one.
    """
    if not isinstance(value, bool):
        raise TypeError(f'{name}={value!r}{_where(at)}: give True or False')
    return value


def non_negative(name: str, value: float, at: object) -> float:
    """A finite number that is not negative.

    Raises:
        TypeError, ValueError: Naming the setting, its value and its place.
    """
    return in_range(name, value, at, float('inf'))


def in_range(name: str, value: float, at: object, most: float = 1.0) -> float:
    """A finite number between 0 and ``most``.

    Raises:
        TypeError, ValueError: Naming the setting, its value and its place.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f'{name}={value!r} at {at!r}: give a number')
    if not 0 <= value <= most or value == float('inf'):
        limit = 'that is not negative' if most == float('inf') else f'from 0 to {most:g}'
        raise ValueError(f'{name}={value!r} at {at!r}: give a finite number {limit}')
    return float(value)


def positive(name: str, value: float, at: object) -> float:
    """A finite number above 0.

    Raises:
        TypeError, ValueError: Naming the setting, its value and its place.
    """
    if not non_negative(name, value, at):
        raise ValueError(f'{name}={value!r} at {at!r}: give a positive number')
    return float(value)


def whole(name: str, value: int, least: int = 1, at: object = None) -> int:
    """A whole number of at least ``least``.

    Raises:
        ValueError: Naming the setting, its value and its place, if it has one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f'{name}={value!r}{_where(at)}: give a whole number of at least {least}')
    return value


def _where(at: object) -> str:
    return '' if at is None else f' at {at!r}'


def share(name: str, value: float | None, at: object) -> float | None:
    """A factor as :func:`non_negative` takes it, or None for a share of what others leave."""
    return None if value is None else non_negative(name, value, at)
