# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Robustness tables as files and as text."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mmfeataug.utils.files import write_at_once

from .robustness import mean

JSON, CSV, MARKDOWN = 'robustness.json', 'robustness.csv', 'robustness.md'
ATTACKED = 'adversarial.json'
"""What ``AdversarialTestLoop`` writes."""
SETTINGS = (
    *('attack', 'at', 'side', 'norm', 'unit', 'image_range', 'against'),
    *('steps', 'step_size', 'random_start', 'restarts'),
)
"""What has to be the same for two attacks to be compared; seeds may differ."""


def read_json(path: str | os.PathLike, what: str, needed: Iterable[str]) -> dict[str, Any]:
    """Read an object from a JSON file.

    Args:
        path: Of the file.
        what: What it should be.
        needed: Keys that it must have.

    Raises:
        ValueError: If the file is something else.
    """
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f'{path} is no JSON file: {error}') from None
    missing = [key for key in needed if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f'{path} is no {what}: it has no {", ".join(missing)}')
    return content


def read_table(path: str | os.PathLike) -> dict[str, Any]:
    """Read a table that :func:`write_table` wrote.

    Raises:
        ValueError: If the file is none.
    """
    needed = ('config', 'checkpoint', 'task', 'metrics', 'clean', 'also', 'corrupted', 'made_with')
    return read_json(path, 'table of robustness', needed)


def write_table(table: Mapping[str, Any], folder: str | os.PathLike) -> None:
    """Write ``robustness.json``, ``.csv`` and ``.md``, each atomically.

    Args:
        table: As :func:`~mmfeataug.evaluation.complete` returns it.
        folder: Made if missing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # JSON is replaced last: what a resumed run reads is never ahead of the other two.
    texts = {
        CSV: to_csv(table),
        MARKDOWN: to_markdown(table),
        JSON: json.dumps(table, indent=2, allow_nan=False) + '\n',
    }
    for name, text in texts.items():
        write_at_once(folder / name, text)


def to_csv(table: Mapping[str, Any]) -> str:
    """One line per condition, clean and other test sets first, and one column per metric; empty
    where undefined.
    """
    metrics = _every_metric(table)
    lines = [('clean', 0, table['clean'])]
    lines += [(name, 0, scores) for name, scores in table['also'].items()]
    for name, by_severity in table['corrupted'].items():
        lines += [(name, int(severity), scores) for severity, scores in by_severity.items()]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['corruption', 'severity', *metrics])
    for name, severity, scores in lines:
        values = (scores.get(metric) for metric in metrics)
        writer.writerow([name, severity, *('' if v is None else repr(v) for v in values)])
    return out.getvalue()


def main_metric(table: Mapping[str, Any]) -> str:
    """The most important metric of a task, to show first."""
    endings = ('mAP', 'mIoU', 'top1')
    return next((m for m in table['metrics'] if m.endswith(endings)), table['metrics'][0])


def rows(table: Mapping[str, Any], metric: str) -> list[list[str]]:
    """Rows of a table: header, one per corruption, and means; columns: severities and their mean.

    Means at the end are those of ``summary``: without the extra corruptions, if others are there.
    """
    severities = sorted({s for by in table['corrupted'].values() for s in by}, key=int)
    show = _format(table, metric)
    lines = [['corruption', *severities, 'mean']]
    for name, by_severity in table['corrupted'].items():
        values = [by_severity.get(severity, {}).get(metric) for severity in severities]
        lines.append([name, *map(show, values), show(mean(values))])
    summary = table['summary'][metric]
    means = (summary['severities'].get(severity) for severity in severities)
    return [*lines, ['mean', *map(show, means), show(summary['mPC'])]]


def summary_rows(table: Mapping[str, Any]) -> list[list[str]]:
    """Header, and a line for each metric: P, other test sets, mPC, rPC, the worst corruption and
    the families' means.
    """
    also = table['also']
    families = list(next(iter(table['summary'].values()))['families'])
    lines: list[list[str]] = [['metric', 'P', *also, 'mPC', 'rPC', 'worst', *families]]
    for metric in _every_metric(table):
        show = _format(table, metric)
        others = [show(scores.get(metric)) for scores in also.values()]
        if summary := table['summary'].get(metric):
            means = map(show, summary['families'].values())
            after = [show(summary['mPC']), _ratio(summary), _worst(summary, show), *means]
            lines.append([metric, show(summary['P']), *others, *after])
        else:
            lines.append([metric, '-', *others, *['-'] * (3 + len(families))])
    return lines


def summary_line(table: Mapping[str, Any], metric: str) -> str:
    """Summary of a metric in one line."""
    summary, show = table['summary'][metric], _format(table, metric)
    line = f'P {show(summary["P"])}, mPC {show(summary["mPC"])}, rPC {_ratio(summary)}'
    if summary['worst']:
        line += f', worst {_worst(summary, show)}'
    for name, scores in table['also'].items():
        if metric in scores:
            line += f', {name} {show(scores[metric])}'
    error = ((table['mCE'] or {}).get('metrics') or {}).get(metric, {})
    if error.get('mCE') is not None:
        line += f', mCE {error["mCE"]:.3f} of {table["mCE"]["reference"]["config"]}'
    elif error.get('mean_error') is not None:
        line += f', mean error {show(error["mean_error"])} (not divided by a reference)'
    return line


def to_markdown(table: Mapping[str, Any]) -> str:
    """A table for each metric, one with all summaries, and the notes."""
    images = table['made_with'].get('images')
    tested = f'Checkpoint: `{table["checkpoint"]}`' + (f', {images} test images' if images else '')
    parts = [f'# Robustness of {table["config"]}', tested]
    if table['metrics']:
        parts.append(_markdown(summary_rows(table)))
    for metric in table['metrics'] if table['corrupted'] else []:
        parts += [f'## {metric}', _markdown(rows(table, metric)), summary_line(table, metric)]
    if table['notes']:
        parts += ['## Notes', '\n'.join(f'- {note}' for note in table['notes'])]
    return '\n\n'.join(parts) + '\n'


def _markdown(lines: list[list[str]]) -> str:
    head, *body = lines
    rule = ['---', *['---:'] * (len(head) - 1)]
    return '\n'.join(map(markdown_row, (head, rule, *body)))


def markdown_row(cells: Iterable[str]) -> str:
    """A line of a Markdown table; names of metrics and classes may hold what parts its cells."""
    return f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in cells)} |'


def _format(table: Mapping[str, Any], metric: str) -> Callable[[float | None], str]:
    """Two decimals for percents, four for parts of 1."""
    values = [scores.get(metric) for scores in (table['clean'], *table['also'].values())]
    values += [s.get(metric) for by in table['corrupted'].values() for s in by.values()]
    decimals = 4 if all(value is None or abs(value) <= 1 for value in values) else 2
    return lambda value: '-' if value is None else f'{value:.{decimals}f}'


def _ratio(summary: Mapping[str, Any]) -> str:
    return '-' if summary['rPC'] is None else f'{summary["rPC"]:.3f}'


def _worst(summary: Mapping[str, Any], show: Callable[[float | None], str]) -> str:
    worst = summary['worst']
    return f'{worst["corruption"]} {show(worst["value"])}' if worst else '-'


def _every_metric(table: Mapping[str, Any]) -> list[str]:
    """Those of the table, then those that only other test sets have."""
    others = (name for scores in table['also'].values() for name in scores)
    return list(dict.fromkeys([*table['metrics'], *others]))
