# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What mmengine logged while a model was trained."""

import json
import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""Scalar by name, at one logged iteration."""

Curve = list[tuple[int, float]]
"""Iteration, counted from 1, and value."""

_VIEW = re.compile(r'^(.+)\.loss_\d+$')
_NORMS = ('linf', 'l2', 'shift', 'dropped')


def read_log(folder: Path) -> list[Record]:
    """Training records of a work directory, in the order of iterations.

    A resumed run leaves one ``<time>/vis_data/scalars.json`` each time it was started. They are
    merged by iteration; what was logged later counts. A last line that was cut off when a run was
    killed does not.

    Args:
        folder: Work directory of mmengine.

    Raises:
        ValueError: If a line of a log is no JSON object; the message names file and line.
    """
    records: dict[int, Record] = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        text = path.read_text()
        lines = text.splitlines() if text.endswith('\n') else text.splitlines()[:-1]
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                # Validations have no iteration of their own.
                if 'iter' in record:
                    records[int(record['iter'])] = record
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f'{path}, line {number}: {error}. Logs hold one JSON object a line; delete '
                    'this one'
                ) from error
    return [records[i] for i in sorted(records)]


def methods_in(records: Sequence[Record]) -> set[str]:
    """Names of methods, such as ``'afan'``, that logged losses of views or norms of changes."""
    names = {'feature_aug'}
    for key in {key for record in records for key in record}:
        view = _VIEW.match(key)
        head, _, last = key.rpartition('.')
        if view:
            names.add(view[1])
        elif head and last in _NORMS:
            names.add(head)
    return names


def clean_loss(records: Sequence[Record], clean_weight: float = 1.0) -> Curve:
    """Total of the stock terms, as the stock model weighs them.

    Args:
        records: Of :func:`read_log`.
        clean_weight: Of the hook, which multiplies the stock terms of iterations with views. Where
            only some have views, it is undone by their share between two records.
    """
    curve, before, turns = [], 0, 0.0
    for record in records:
        iteration = record['iter']
        views = any(map(_VIEW.match, record))
        now = record.get('feature_aug.active', float(views)) * iteration
        share = min(1.0, max(0.0, (now - turns) / max(iteration - before, 1)))
        before, turns = iteration, now
        value = _stock_total(record)
        if value is not None:
            curve.append((iteration, value / (1 + (clean_weight - 1) * share if views else 1)))
    return curve


def _stock_total(record: Record) -> float | None:
    terms = [
        value
        for key, value in record.items()
        if 'loss' in key and key != 'loss' and not _VIEW.match(key)
    ]
    # Classifiers call their only term loss; it then stands in the place of the total.
    return math.fsum(terms) if terms else record.get('loss')


def view_losses(records: Sequence[Record]) -> dict[str, Curve]:
    """Curve by name (``'<method>.loss_<n>'``): each as weighted in the total."""
    return _curves(records, [key for key in _keys(records) if _VIEW.match(key)])


def method_scalars(records: Sequence[Record]) -> dict[str, Curve]:
    """Curve by name of what methods and their hook log beside losses: norms of the change, views
    that were dropped, the share of iterations with views.
    """
    methods = methods_in(records)
    names = [
        key for key in _keys(records) if key.rpartition('.')[0] in methods and not _VIEW.match(key)
    ]
    return _curves(records, names)


def _keys(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(key for record in records for key in record))


def _curves(records: Sequence[Record], names: Sequence[str]) -> dict[str, Curve]:
    return {n: [(r['iter'], float(r[n])) for r in records if n in r] for n in names}


def cost(records: Sequence[Record]) -> dict[str, float]:
    """Median seconds of an iteration (``'seconds'``), and the most memory in MiB (``'memory'``), as
    far as they were logged.
    """
    times = [r['time'] for r in records if 'time' in r]
    memory = [r['memory'] for r in records if 'memory' in r]
    found = {}
    if times:
        found['seconds'] = float(statistics.median(times))
    if memory:
        found['memory'] = float(max(memory))
    return found
