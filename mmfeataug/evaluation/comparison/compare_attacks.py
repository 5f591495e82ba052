# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Comparison of attacks with the same settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..report import SETTINGS, main_metric
from .compare import Groups, Spread, note_images, spread
from .runs import Run, label_of


@dataclass
class AttackComparison:
    """Comparison of the curves of one attack.

    Attributes:
        settings: Those of :data:`SETTINGS`.
        metrics: The main one first.
        curves: Spread by metric, name and strength.
        folder: Where the results lie; ``None`` if a run has only one of these settings.
        missing: Runs that were not attacked in this way.
        notes: What the comparison left out.
    """

    task: str
    settings: dict[str, Any]
    metrics: list[str]
    curves: dict[str, dict[str, dict[float, Spread | None]]] = field(default_factory=dict)
    folder: str | None = None
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Found = list[tuple[str, Run, str, Mapping[str, Any]]]
"""Name, run, folder and result."""


def compare_attacks(task: str, groups: Groups) -> list[AttackComparison]:
    """One comparison per group of results with the same settings.

    Where a run has several of the same settings, such as on two test sets, folders are told apart.
    """
    by_settings: dict[str, Found] = {}
    for name, runs in groups.items():
        for run in runs:
            for folder, result in run.attacks.items():
                if result['task'] in (task, None):
                    key = repr(_settings(result))
                    by_settings.setdefault(key, []).append((name, run, folder, result))
    compared = []
    for found in by_settings.values():
        if len({id(run) for _, run, _, _ in found}) == len(found):
            compared.append(_compare(task, groups, found, None))
            continue
        for folder in dict.fromkeys(folder for _, _, folder, _ in found):
            part = [one for one in found if one[2] == folder]
            compared.append(_compare(task, groups, part, folder))
    return compared


def _settings(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in SETTINGS}


def _compare(task: str, groups: Groups, found: Found, folder: str | None) -> AttackComparison:
    metrics = list(
        dict.fromkeys(m for *_, result in found for p in result['curve'] for m in p['metrics'])
    )
    if metrics:
        main = main_metric(dict(metrics=metrics))
        metrics = [main, *(m for m in metrics if m != main)]
    compared = AttackComparison(task, _settings(found[0][3]), metrics, folder=folder)
    compared.notes += note_images([result for *_, result in found])
    for name, runs in groups.items():
        results = [result for other, _, _, result in found if other == name]
        for run in runs:
            if not any(run is other for _, other, _, _ in found):
                compared.missing.append(label_of(run, runs))
        if results:
            _fill(compared, name, results)
    return compared


def _fill(compared: AttackComparison, name: str, results: list[Mapping[str, Any]]) -> None:
    """Curves of one name, over the strengths that all of its seeds have."""
    points = [{float(p['eps']): p['metrics'] for p in result['curve']} for result in results]
    shared = set.intersection(*map(set, points))
    lost = set.union(*map(set, points)) - shared
    if lost:
        shown = ', '.join(f'{eps:g}' for eps in sorted(lost))
        compared.notes.append(f'{name}: strengths that not all seeds have are left out: {shown}')
    for metric in compared.metrics:
        curve = {}
        for eps in sorted(shared):
            values = [p[eps].get(metric) for p in points]
            # A mean over some of the seeds would bend the curve.
            curve[eps] = spread(values) if all(v is not None for v in values) else None
        compared.curves.setdefault(metric, {})[name] = curve
