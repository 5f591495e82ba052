# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Errors and warnings about a run, and config lines that correct them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mmfeataug.engine import each_fault
from mmfeataug.utils.configs import type_name
from mmfeataug.utils.errors import root_cause
from mmfeataug.utils.settings import DECLARE, MERGE, Fix


@dataclass(frozen=True)
class Finding:
    """One error or warning.

    Attributes:
        message: With the setting, its value and the remedy.
        error: What is raised for it, because it cannot work; None where it is unwise.
        fix: A setting that mends it, if one does.
        places: Of all augmentations of the kind that the fix moves: those of a pattern are among
            them.
    """

    message: str
    error: Exception | None = None
    fix: Fix | None = None
    places: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``'error'`` or ``'warning'``."""
        return 'warning' if self.error is None else 'error'


def errors(error: Exception) -> list[Finding]:
    """Findings for an exception, one for each fault that was raised together."""
    return [Finding(_said(e), e, getattr(root_cause(e), 'fix', None)) for e in each_fault(error)]


def _said(error: Exception) -> str:
    # The text of a KeyError is that of its key.
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


_TAKES = (DECLARE, MERGE)
_ENTRY, _HOOK = 'augmentation', 'FeatureAugHook'


def entries(cfg: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Augmentations of a config, each with its path in there."""
    for i, one in enumerate(cfg.get('custom_hooks') or ()):
        if isinstance(one, Mapping) and type_name(one) == _HOOK:
            yield from _listed(one, f'custom_hooks[{i}]')
    waiting = [('model', cfg.get('model') or {})]
    while waiting:
        path, part = waiting.pop(0)
        if type_name(part).startswith('Augmented'):
            yield from _listed(part, path)
        waiting += [(f'{path}.{k}', v) for k, v in part.items() if isinstance(v, Mapping)]


def _listed(owner: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for j, entry in enumerate(owner.get('augmentations') or ()):
        if isinstance(entry, Mapping):
            yield f'{path}.augmentations[{j}]', entry


def config_lines(cfg: Mapping[str, Any], findings: Sequence[Finding]) -> list[str]:
    """Lines for a config whose base is the one that was looked at, so that ``_base_`` is it.

    Args:
        cfg: That was looked at.
        findings: Those without a fix are left out.
    """
    fixes = [finding.fix for finding in findings if finding.fix is not None]
    # What takes entries out of their lists comes last, the last entry first.
    lines = [_line(cfg, f) for f in fixes if f.key not in _TAKES and f.owner != _ENTRY]
    lines += _settings(cfg, findings)
    moved = [_line(cfg, fix) for fix in fixes if fix.key in _TAKES]
    found = [line for line in (*lines, *sorted(filter(None, moved), reverse=True)) if line]
    return list(dict.fromkeys(found))


def _settings(cfg: Mapping[str, Any], findings: Sequence[Finding]) -> list[str]:
    """Lines for settings of augmentations; none where findings want different values of one."""
    values: dict[str, list[Any]] = {}
    for finding in findings:
        fix = finding.fix
        if fix is None or fix.owner != _ENTRY or fix.key in _TAKES:
            continue
        meant = _meant(cfg, fix)
        if fix.key == 'at':
            # A place that is wrong is so in each entry; one entry may have several.
            for path, entry in meant:
                at = values.get(f'{path}.at', [entry.get('at')])[0]
                values[f'{path}.at'] = [_moved(at, fix, finding.places)]
        elif len(meant) == 1:
            values.setdefault(f'{meant[0][0]}.{fix.key}', []).append(fix.value)
    return [
        f'_base_.{key} = {each[0]!r}'
        for key, each in values.items()
        if all(value == each[0] for value in each)
    ]


def _line(cfg: Mapping[str, Any], fix: Fix) -> str:
    if fix.owner == 'config':
        head, _, rest = fix.key.partition('.')
        if head in cfg:
            return f'_base_.{fix.key} = {fix.value!r}'
        return f'{head} = dict({rest}={fix.value!r})' if rest else f'{head} = {fix.value!r}'
    if fix.owner == 'hook':
        each = enumerate(cfg.get('custom_hooks') or ())
        hooks = [i for i, one in each if type_name(one) == _HOOK]
        if fix.key == MERGE:
            return (
                f"_base_.custom_hooks[{hooks[0]}].setdefault('augmentations', []).extend("
                f"_base_.custom_hooks.pop({hooks[1]}).get('augmentations', []))"
            )
        return f'_base_.custom_hooks[{hooks[0]}].{fix.key} = {fix.value!r}' if hooks else ''
    meant = _meant(cfg, fix)
    return _declaration(cfg, meant[0][0]) if meant else ''


def _meant(cfg: Mapping[str, Any], fix: Fix) -> list[tuple[str, Mapping[str, Any]]]:
    """Entries of augmentations that a fix is for."""
    return [(path, e) for path, e in entries(cfg) if _is_meant(path, e, fix)]


def _is_meant(path: str, entry: Mapping[str, Any], fix: Fix) -> bool:
    if fix.kind and type_name(entry) != fix.kind:
        return False
    if not entry.get('at'):
        # The default of its class, or the part of a model that declares it.
        return bool(fix.kind)
    # Parts of a model count from themselves.
    in_part = path.startswith('model.')
    heads = [_head(place, fix.at) for place in _listed_places(entry['at'])]
    return any(head is not None and (in_part or not head) for head in heads)


def _listed_places(at: str | Sequence[str]) -> list[str]:
    return [at] if isinstance(at, str) else list(at)


def _head(name: str, place: str) -> str | None:
    """What comes before a path or pattern in a place that it names; None if it names another.

    A pattern names as :func:`mmfeataug.engine.build_each` has it: ``*`` stays between two dots.
    """
    if name == place:
        return ''
    wanted, parts = name.split('.'), place.split('.')
    lead = len(parts) - len(wanted)
    if lead < 0 or not all(map(fnmatchcase, parts[lead:], wanted)):
        return None
    return ''.join(f'{part}.' for part in parts[:lead])


def _moved(at: str | Sequence[str] | None, fix: Fix, places: Sequence[str]) -> str | list[str]:
    """The setting ``at`` with one of its places replaced; a pattern becomes the list of its own."""
    if not at:
        return fix.value
    found: list[str] = []
    for name in _listed_places(at):
        head = _head(name, fix.at)
        if head is None:
            found.append(name)
            continue
        same = [p for p in places if _head(name, p) == head] or [fix.at]
        found += [(fix.value if p == fix.at else p).removeprefix(head) for p in same]
    found = list(dict.fromkeys(found))
    return found[0] if isinstance(at, str) and len(found) == 1 else found


def _declaration(cfg: Mapping[str, Any], path: str) -> str:
    owner, _, index = path.rpartition('[')
    if not owner.startswith('custom_hooks'):
        return ''
    taken = f'_base_.{owner}.pop({index[:-1]})'
    if type_name(cfg['model']) == 'AugmentedModel':
        return f"_base_.model.setdefault('augmentations', []).append({taken})"
    return (
        "_base_.model.update(type='mmfeataug.AugmentedModel', of=_base_.model.type, "
        f'augmentations=[{taken}])'
    )
