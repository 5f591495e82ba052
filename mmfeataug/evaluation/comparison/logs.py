# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Training logs of mmengine."""

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfeataug.engine import CARRIER

Record = dict[str, Any]
"""Scalar by name, at one logged iteration."""

Curve = list[tuple[int, float]]
"""Iteration, counted from 1, and value."""

_VIEW = re.compile(r'^(.+)\.loss_\d+$')
_NORMS = ('linf', 'l2', 'shift', 'rise', 'dropped')


def read_log(folder: Path) -> list[Record]:
    """Training records of a work directory, in the order of iterations.

    A resumed run leaves one ``<time>/vis_data/scalars.json`` each time it was started, or a file
    of another name (``scalar_save_file`` of the backend). They are put together by iteration; what
    a later one did anew counts. A last line that was cut off when a run was killed does not.

    Raises:
        ValueError: If a line of a log is no JSON object; the message names file and line.
    """
    records: dict[int, Record] = {}
    for path in log_files(folder):
        launch = _read_launch(path)
        # What an earlier launch did from there on, this one did anew; all, if it did not resume.
        first = 0 if launch and _began_anew(path) else min(launch, default=math.inf)
        records = {i: record for i, record in records.items() if i < first} | launch
    return [records[i] for i in sorted(records)]


def _began_anew(log: Path) -> bool:
    """Whether the config that mmengine writes beside a log says that this launch resumed none."""
    config = log.with_name('config.py')
    return config.is_file() and not re.search(r'^resume = True$', config.read_text(), re.MULTILINE)


def log_files(folder: Path) -> list[Path]:
    """One file of scalars for each time that a run was started, in the order of time.

    mmengine writes all scalars twice: to the backend's file, and to one named by the time.
    """
    every = sorted(folder.glob('*/vis_data/*.json'))
    chosen = {path.parent: path for path in every if '"iter"' in path.read_text()}
    chosen |= {path.parent: path for path in every if path.name == 'scalars.json'}
    return [chosen[parent] for parent in sorted(chosen)]


def _read_launch(path: Path) -> dict[int, Record]:
    text = path.read_text()
    lines = text.splitlines() if text.endswith('\n') else text.splitlines()[:-1]
    records = {}
    for number, line in enumerate(lines, 1):
        try:
            # With log_with_hierarchy mmengine writes train/loss.
            record = {k.removeprefix('train/'): v for k, v in json.loads(line).items()}
            # Validations have no iteration of their own.
            if 'iter' in record:
                records[int(record['iter'])] = record
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{path}, line {number}: {error}. Logs hold one JSON object a line; delete this one'
            ) from error
    return records


def methods_in(records: Sequence[Record]) -> set[str]:
    """Names of methods, such as ``'afan'``, that logged losses of views or norms of changes."""
    names = {'feature_aug'}
    for key in keys_of(records):
        view = _VIEW.match(key)
        head, _, last = key.rpartition('.')
        if view:
            names.add(view[1])
        elif head and last in _NORMS:
            names.add(head)
    return names


def shares(records: Sequence[Record], window: int) -> list[float]:
    """Share of iterations with views in the window that ends at each record.

    Args:
        records: Of :func:`read_log`.
        window: Iterations that mmengine's losses are means over (``log_processor.window_size``).
    """
    active = [r.get('feature_aug.active', 0.0) for r in records]
    return [float(np.clip(share, 0, 1)) for share in _in_windows(records, active, window)]


def clean_loss(records: Sequence[Record], window: int = 10) -> Curve:
    """Sum of the stock loss terms, without ``clean_weight``.

    Args:
        records: Of :func:`read_log`.
        window: See :func:`shares`.
    """
    # Stock runs log none.
    means = [r.get('feature_aug.clean_weight', 1.0) for r in records]
    factors = zip(records, _in_windows(records, means, window), strict=True)
    totals = [(record['iter'], _stock_total(record), factor) for record, factor in factors]
    return [(step, total / factor) for step, total, factor in totals if total is not None]


def _in_windows(records: Sequence[Record], means: Sequence[float], window: int) -> list[float]:
    """Means over the window that ends at each record, of those over all iterations so far."""
    at = [0.0, *(float(r['iter']) for r in records)]
    sums = [0.0, *(r['iter'] * mean for r, mean in zip(records, means, strict=True))]

    def mean(end: float) -> float:
        begin = max(0.0, end - window)
        gone = np.interp([begin, end], at, sums)
        return float((gone[1] - gone[0]) / (end - begin))

    return [mean(end) for end in at[1:]]


def _stock_total(record: Record) -> float | None:
    terms = [
        value
        for key, value in record.items()
        if 'loss' in key and key not in ('loss', CARRIER) and not _VIEW.match(key)
    ]
    # Classifiers call their only term loss; it then stands in the place of the total.
    return math.fsum(terms) if terms else record.get('loss')


def view_losses(records: Sequence[Record], window: int = 10) -> dict[str, Curve]:
    """Curve by name (``'<method>.loss_<n>'``): each as weighted in the total, while there were
    views; mmengine repeats the last value afterwards.
    """
    kept = [r for r, share in zip(records, shares(records, window), strict=True) if share]
    return _curves(kept, [key for key in keys_of(kept) if _VIEW.match(key)])


def method_scalars(records: Sequence[Record], window: int = 10) -> dict[str, Curve]:
    """Curve by name of what methods and their hook log beside losses: norms of the change and views
    that were dropped, while there were views; the share of iterations with views.
    """
    methods = methods_in(records)
    kept = [r for r, share in zip(records, shares(records, window), strict=True) if share]
    names = [
        key
        for key in keys_of(records)
        if key.rpartition('.')[0] in methods and key != CARRIER and not _VIEW.match(key)
    ]
    whole = [key for key in names if key.startswith('feature_aug.')]
    return {**_curves(kept, [n for n in names if n not in whole]), **_curves(records, whole)}


def keys_of(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """All keys of some dicts, each once, in the order in which they come."""
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
