# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Runs beside each other: tables of robustness over the same conditions, attacks with the same
settings; means and deviations over seeds.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..report import main_metric
from ..robustness import corruption_error, summarise
from .logs import keys_of
from .runs import Run, label_of

Groups = Mapping[str, Sequence[Run]]
"""Seeds by name."""


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, standard deviation (ddof=1; ``None`` for a single seed) and their number."""

    mean: float
    std: float | None
    n: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and deviation of the values that are numbers; ``None`` if there is none."""
    numbers = [float(v) for v in values if v is not None and math.isfinite(v)]
    if not numbers:
        return None
    std = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Spread(statistics.fmean(numbers), std, len(numbers))


@dataclass
class Comparison:
    """Comparison of the tables of one task that are in the same subfolder of their runs.

    Attributes:
        metrics: The main one first.
        summary: Spread by metric, name and key: ``P``, ``mPC``, ``rPC``, ``worst``, a family,
            ``mCE`` or ``mean error``, another test set.
        runs: Runs with such a table, by name.
        conditions: Corruptions and severities common to all, by metric.
        values: The values behind ``summary``: one per run, by metric, name and key.
        by_corruption: Values by corruption, one dict per run, by metric and name.
        severities: Spread by metric, name and severity; ``'0'`` is clean.
        corruptions: Spread by metric, name and corruption, over severities.
        families: Those that are covered, in order.
        also: Other test sets.
        missing: Runs without such a table.
        notes: Notes of the tables, and what was left out.
    """

    task: str
    folder: str
    metrics: list[str]
    names: list[str]
    runs: dict[str, list[Run]] = field(default_factory=dict)
    conditions: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    values: dict[str, dict[str, dict[str, list[float | None]]]] = field(default_factory=dict)
    by_corruption: dict[str, dict[str, list[dict[str, float | None]]]] = field(default_factory=dict)
    summary: dict[str, dict[str, dict[str, Spread | None]]] = field(default_factory=dict)
    severities: dict[str, dict[str, dict[str, Spread | None]]] = field(default_factory=dict)
    corruptions: dict[str, dict[str, dict[str, Spread | None]]] = field(default_factory=dict)
    families: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare_tables(task: str, groups: Groups) -> list[Comparison]:
    """One comparison per subfolder in which any run of the task has a table."""
    folders = dict.fromkeys(
        folder
        for runs in groups.values()
        for run in runs
        for folder, table in run.tables.items()
        if table['task'] in (task, None)
    )
    return [_compare(task, folder, groups) for folder in folders]


def _compare(task: str, folder: str, groups: Groups) -> Comparison:
    tables: dict[str, list[dict[str, Any]]] = {}
    holders: dict[str, list[Run]] = {}
    missing: list[str] = []
    notes: list[str] = []
    said: dict[str, list[str]] = {}
    for name, runs in groups.items():
        for run in runs:
            label = label_of(run, runs)
            table = run.tables.get(folder)
            if table is None:
                missing.append(f'{label} has no table of robustness in its folder {folder}')
                continue
            tables.setdefault(name, []).append(table)
            holders.setdefault(name, []).append(run)
            if not table['metrics']:
                notes.append(f'the table of {label} in its folder {folder} has no metric at all')
            for note in table['notes']:
                said.setdefault(note, []).append(label)
    every = [table for of_name in tables.values() for table in of_name]
    metrics = list(dict.fromkeys(m for t in every for m in t['metrics']))
    notes += note_images(every) + _note_libraries(every) + _note_tests(every)
    if metrics:
        with_metrics = [t for t in every if t['metrics']]
        of_all = [m for m in metrics if all(m in t['metrics'] for t in with_metrics)]
        main = main_metric({**with_metrics[0], 'metrics': of_all or with_metrics[0]['metrics']})
        metrics = [main, *(m for m in metrics if m != main)]
        others = [
            n
            for n, of in tables.items()
            if any(t['metrics'] and main not in t['metrics'] for t in of)
        ]
        if others:
            notes.append(
                f'{", ".join(others)}: no {main} in the tables, so that it compares nothing with '
                'them: test all with the same test_evaluator'
            )
    notes += [f'table of {", ".join(labels)}: {note}' for note, labels in said.items()]
    result = Comparison(task, folder, metrics, list(tables), holders, missing=missing, notes=notes)
    left_out: dict[str, list[str]] = {}
    for metric in metrics:
        shared, lost = _shared_conditions([t for t in every if metric in t['metrics']], metric)
        result.conditions[metric] = shared
        if lost:
            left_out.setdefault(_left_out(lost, shared), []).append(metric)
        _summarise(result, tables, metric, shared, comparable=not lost)
    for sentence, of in left_out.items():
        which = ', '.join(of) if len(of) < len(metrics) else 'all metrics'
        result.notes.insert(0, f'{which}: {sentence}')
    return result


def note_images(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """A note, if tables or results of attacks are of different numbers of test images."""
    made = [result['made_with'] for result in results]
    numbers = {with_['images'] for with_ in made if 'images' in with_}
    counts = ', '.join(map(str, sorted(numbers)))
    said = f'different numbers of test images ({counts}): differences between these mean little'
    return [said] if len(numbers) > 1 else []


def _note_tests(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    """Notes, if tables are of other data or evaluators, as far as they say it."""
    made = [table['made_with'] for table in tables]
    notes = []
    if len({one['test'] for one in made if 'test' in one}) > 1:
        notes.append(
            'test sets or evaluators are written differently in the configs of these tests: '
            'differences may come from that'
        )
    digests: dict[str, set[str]] = {}
    for one in made:
        for name, digest in one.get('also', {}).items():
            digests.setdefault(name, set()).add(digest)
    notes += [
        f'{name}: {len(found)} test sets have this name: differences may come from that'
        for name, found in digests.items()
        if len(found) > 1
    ]
    return notes


def _note_libraries(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    """A note, if images were corrupted by several versions."""
    said = (table['made_with'].get('libraries', {}) for table in tables)
    versions = {' '.join(f'{k} {v}' for k, v in sorted(one.items())) for one in said if one}
    if len(versions) < 2:
        return []
    return [f'images were corrupted by different versions: {"; ".join(sorted(versions))}']


def _shared_conditions(
    tables: Sequence[Mapping[str, Any]], metric: str
) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Corruptions and severities where the metric is defined in all tables; and in some only."""
    defined = [
        {
            (name, severity)
            for name, by_severity in table['corrupted'].items()
            for severity, scores in by_severity.items()
            if scores.get(metric) is not None
        }
        for table in tables
    ]
    shared = set.intersection(*defined)
    return shared, set.union(*defined) - shared


def _left_out(lost: set[tuple[str, str]], shared: set[tuple[str, str]]) -> str:
    shown = [f'{name} {severity}' for name, severity in sorted(lost)]
    return (
        f'compared over the {len(shared)} corrupted conditions that every run has; '
        f'{len(lost)} are left out because some run lacks them: '
        f'{", ".join(shown[:8])}{", ..." if len(shown) > 8 else ""}'
    )


def _summarise(
    result: Comparison,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    metric: str,
    shared: set[tuple[str, str]],
    comparable: bool,
) -> None:
    """Fill in one metric."""
    key = _error_key(tables, metric, comparable)
    if key is None and any(_has_mce(t, metric) for of in tables.values() for t in of):
        result.notes.append(
            f'{metric}: mCE is left out, because the tables have other conditions or references'
        )
    for name, of_name in tables.items():
        parts, by_corruption, rows = [], [], []
        for table in of_name:
            corrupted = _restricted(table['corrupted'], shared)
            part = summarise(table['clean'] or {}, corrupted, metric)
            row = {k: part[k] for k in ('P', 'mPC', 'rPC')}
            row['worst'] = (part['worst'] or {}).get('value')
            if key == 'mCE':
                row[key] = _errors_of(table, metric)[key]
            elif key:
                row[key] = corruption_error(corrupted, metric)['mean_error']
            also = {k: v.get(metric) for k, v in table['also'].items()}
            rows.append(also | row | part['families'])
            result.also += [name for name in also if name not in result.also]
            parts.append(part)
            by_corruption.append(
                {c: summarise({}, {c: by}, metric)['mPC'] for c, by in corrupted.items()}
            )
            result.families += [f for f in part['families'] if f not in result.families]
        values = {k: [row.get(k) for row in rows] for k in keys_of(rows)}
        result.values.setdefault(metric, {})[name] = values
        result.by_corruption.setdefault(metric, {})[name] = by_corruption
        summary = {k: spread(of) for k, of in values.items()}
        result.summary.setdefault(metric, {})[name] = summary
        result.severities.setdefault(metric, {})[name] = {'0': summary['P']} | {
            s: spread(p['severities'].get(s) for p in parts)
            for s in keys_of(p['severities'] for p in parts)
        }
        result.corruptions.setdefault(metric, {})[name] = {
            c: spread(b.get(c) for b in by_corruption) for c in keys_of(by_corruption)
        }


def _restricted(corrupted: Mapping[str, Any], shared: set[tuple[str, str]]) -> dict[str, Any]:
    kept = {
        name: {s: scores for s, scores in by_severity.items() if (name, s) in shared}
        for name, by_severity in corrupted.items()
    }
    return {name: by_severity for name, by_severity in kept.items() if by_severity}


def _errors_of(table: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    return ((table['mCE'] or {}).get('metrics') or {}).get(metric) or {}


def _has_mce(table: Mapping[str, Any], metric: str) -> bool:
    return _errors_of(table, metric).get('mCE') is not None


def _error_key(
    tables: Mapping[str, Sequence[Mapping[str, Any]]], metric: str, comparable: bool
) -> str | None:
    """Which error of corruptions all tables have: relative to one reference, or plain."""
    every = [table for of_name in tables.values() for table in of_name]
    if all(_has_mce(table, metric) for table in every):
        references = [table['mCE']['reference'] for table in every]
        alike = all(reference == references[0] for reference in references)
        return 'mCE' if comparable and alike else None
    plain = all('mean_error' in _errors_of(table, metric) for table in every)
    return 'mean error' if plain else None
