# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The curve of an attack over its strength: as scores, as files, and gone on with."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfeataug.utils.files import write_at_once

from ..report import ATTACKED, main_metric, markdown_row, read_json
from ..scores import read_scores
from ..unfinished import ANEW, refuse_other
from .masking import flag_lines

Point = dict[str, Any]
"""``eps``, ``metrics``, ``loss``, ``found`` (instances), ``step_size``, and of several attacks
``won`` (images, by attack)."""


def read_earlier_curve(folder: Path, result: Mapping[str, Any], resume: bool) -> dict[str, Any]:
    """The result that an interrupted run left, empty in a new folder. ``result`` is what the new
    one will say, without its curve; ``resume``: whether to go on.

    Raises:
        ValueError: If the folder holds a result that is not gone on with, or one of another attack,
            checkpoint, config or number of images.
    """
    path = folder / ATTACKED
    if not path.exists():
        return {}
    if not resume:
        raise ValueError(
            f'{path} is there already: go on with it (--resume), delete it to start anew, or give '
            'this one an out_dir (--out-dir) of its own'
        )
    try:
        old = read_json(path, 'result of an attack', (*result, 'curve'))
    except ValueError as error:
        raise ValueError(f'{error}. {ANEW}') from None
    free = ('config', 'checkpoint', 'task', 'made_with')
    other = [key for key in result if key not in free and old[key] != result[key]]
    if other:
        raise ValueError(
            f'{path} is the result of another attack ({", ".join(other)}): give '
            'this one an out_dir (--out-dir) of its own, or delete the file'
        )
    refuse_other(str(path), old['made_with'], result['made_with'])
    return old


def score(curve: Sequence[Point], task: str) -> list[Point]:
    """Points by strength, with scores in the place of what the evaluator returned.

    All of them have the same metrics afterwards; ``None`` where one is undefined. Scores stay what
    they are.
    """
    given = [
        {name: math.nan if value is None else value for name, value in point['metrics'].items()}
        for point in curve
    ]
    known: dict[str, float | None] = {}
    for metrics in given:
        scores = read_scores(metrics, None, task, 0)
        known |= {k: v for k, v in scores.items() if v is not None or k not in known}
    points = []
    for point, metrics in zip(curve, given, strict=True):
        scores = read_scores(metrics, known, task, point['found'])
        points.append({**point, 'metrics': {name: scores.get(name) for name in known}})
    return sorted(points, key=lambda point: point['eps'])


def write_curve(result: Mapping[str, Any], folder: Path) -> None:
    """Write ``adversarial.md``, ``.png`` (of the main metric) and, last, ``.json``, which holds the
    result as it is, into a folder that is made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_at_once(folder / 'adversarial.md', markdown(result))
    metrics = list(result['curve'][0]['metrics'])
    if metrics:
        _draw(result, main_metric(dict(metrics=metrics)), folder / 'adversarial.png')
    write_at_once(folder / ATTACKED, json.dumps(result, indent=2, allow_nan=False) + '\n')


def markdown(result: Mapping[str, Any]) -> str:
    """A table of one row per strength, of what ``adversarial.json`` holds."""
    names = list(result['curve'][0]['metrics'])
    lines = [
        f'{result["attack"]} at `{result["at"]}`, {result["steps"]} steps, seed {result["seed"]}',
        '',
        markdown_row([f'eps ({_unit(result)})', *names, 'attacked loss']),
        '|---' * (len(names) + 2) + '|',
    ]
    for point in result['curve']:
        values = [point['metrics'].get(name) for name in names]
        cells = ['-' if value is None else f'{value:.4g}' for value in (*values, point['loss'])]
        cells.insert(0, f'{point["eps"]:g}')
        lines.append(markdown_row(cells))
    for point in result['curve']:
        if won := point.get('won'):
            counts = ', '.join(f'{name} {count}' for name, count in sorted(won.items()))
            lines += ['', f'Strongest at eps {point["eps"]:g}, of images: {counts}']
    if not names:
        lines += [
            '',
            'The evaluator returned no metric (a detector that finds nothing?): check checkpoint, '
            'classes and score_thr',
        ]
    if lacks := result.get('lacks'):
        lines += ['', f'Note: {lacks}']
    if flags := result.get('flags'):
        lines += ['', *flag_lines(flags)]
    return '\n'.join(lines) + '\n'


def _draw(result: Mapping[str, Any], metric: str, path: Path) -> None:
    from matplotlib.figure import Figure

    points = [point for point in result['curve'] if point['metrics'].get(metric) is not None]
    figure = Figure(figsize=(5.2, 3.6), layout='constrained')
    axes = figure.subplots()
    axes.plot([p['eps'] for p in points], [p['metrics'][metric] for p in points], marker='o')
    axes.set(
        title=Path(result['config']).stem,
        xlabel=f'eps ({_unit(result)}) of {result["attack"]} at {result["at"]}',
        ylabel=metric,
    )
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def _unit(result: Mapping[str, Any]) -> str:
    return ', '.join(filter(None, (result['unit'], result['norm'])))
