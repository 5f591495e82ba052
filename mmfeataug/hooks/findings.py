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
    """

    message: str
    error: Exception | None = None
    fix: Fix | None = None

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


def entries(cfg: Mapping[str, Any], hook: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Augmentations of a config, each with its path in there.

    Args:
        cfg: Of the run.
        hook: Class of the hook that drives them.
    """
    for i, one in enumerate(cfg.get('custom_hooks') or ()):
        if isinstance(one, Mapping) and type_name(one) == hook:
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


def config_lines(
    cfg: Mapping[str, Any], findings: Sequence[Finding], hook: str = 'FeatureAugHook'
) -> list[str]:
    """Lines for a config whose base is the one that was looked at, so that ``_base_`` is it.

    Args:
        cfg: That was looked at.
        findings: Those without a fix are left out.
        hook: Class of the hook that drives augmentations.
    """
    fixes = [finding.fix for finding in findings if finding.fix is not None]
    # What takes entries out of their lists comes last, the last entry first.
    lines = [_line(cfg, fix, hook) for fix in fixes if fix.key not in _TAKES]
    moved = [_line(cfg, fix, hook) for fix in fixes if fix.key in _TAKES]
    found = [line for line in (*lines, *sorted(filter(None, moved), reverse=True)) if line]
    return list(dict.fromkeys(found))


def _line(cfg: Mapping[str, Any], fix: Fix, hook: str) -> str:
    if fix.owner == 'config':
        head, _, rest = fix.key.partition('.')
        if head in cfg:
            return f'_base_.{fix.key} = {fix.value!r}'
        return f'{head} = dict({rest}={fix.value!r})' if rest else f'{head} = {fix.value!r}'
    if fix.owner == 'hook':
        hooks = [i for i, one in enumerate(cfg.get('custom_hooks') or ()) if type_name(one) == hook]
        if fix.key == MERGE:
            return (
                f"_base_.custom_hooks[{hooks[0]}].setdefault('augmentations', []).extend("
                f"_base_.custom_hooks.pop({hooks[1]}).get('augmentations', []))"
            )
        return f'_base_.custom_hooks[{hooks[0]}].{fix.key} = {fix.value!r}' if hooks else ''
    path, entry = next(((p, e) for p, e in entries(cfg, hook) if _is_meant(e, fix)), ('', {}))
    if not path:
        return ''
    if fix.key == DECLARE:
        return _declaration(cfg, path)
    return f'_base_.{path}.{fix.key} = {_replaced(entry, fix)!r}'


def _is_meant(entry: Mapping[str, Any], fix: Fix) -> bool:
    if fix.kind and type_name(entry) != fix.kind:
        return False
    at = entry.get('at')
    places = [at] if isinstance(at, str) else list(at or ())
    # Parts of a model count from themselves.
    return not places or any(
        p in ('', fix.at) or fnmatchcase(fix.at, p) or fnmatchcase(fix.at, f'*.{p}') for p in places
    )


def _replaced(entry: Mapping[str, Any], fix: Fix) -> Any:
    at = entry.get('at')
    if fix.key == 'at' and not isinstance(at, str) and at:
        return [fix.value if place == fix.at else place for place in at]
    return fix.value


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
