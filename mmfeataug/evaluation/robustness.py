# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Robustness metrics, computed from tables of scores."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmfeataug.utils.corruptions import ALL, BENCHMARK, FAMILIES

SEVERITIES = (1, 2, 3, 4, 5)

Scores = Mapping[str, float | None]
"""Metric to value; ``None`` where a metric is undefined."""

Corrupted = Mapping[str, Mapping[str, Scores]]
"""Corruption to severity (as a string, as in JSON) to scores."""


def select_corruptions(names: Iterable[str]) -> list[str]:
    """Expand names of corruptions and groups to corruptions, in the order of ``ALL``.

    Args:
        names: Any of ``ALL``, the families, ``'benchmark'`` and ``'all'``.

    Raises:
        ValueError: If a name is none of these; the message has the nearest ones.
    """
    groups = {**FAMILIES, 'benchmark': BENCHMARK, 'all': ALL, **{name: (name,) for name in ALL}}
    chosen: set[str] = set()
    for name in names:
        if name not in groups:
            near = difflib.get_close_matches(name, groups, n=3, cutoff=0.4) or groups
            raise ValueError(f'corruption {name!r} is unknown: did you mean {", ".join(near)}?')
        chosen.update(groups[name])
    return [name for name in ALL if name in chosen]


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of those that are numbers, the same in any order; ``None`` if there is none."""
    numbers = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(numbers) / len(numbers) if numbers else None


LESS = frozenset(
    ('loss', 'error', 'err', 'mae', 'mse', 'rmse', 'nme', 'epe', 'ece', 'eer', 'mr', 'mmr', 'silog')
    + ('log10', 'miss', 'rel', 'fp', 'fn', 'fpr', 'fnr', 'idsw', 'frag', 'fid', 'lpips')
)
"""Words in names of metrics of which less is better."""


def less_is_better(metric: str) -> bool:
    """Whether a metric is a loss, an error or a miss rate, by the words of its name, such as
    ``'crowd_human/mMR'``, ``'abs_rel'`` or ``'test_loss'``.
    """
    return not LESS.isdisjoint(re.split(r'[^a-z0-9]+', metric.rpartition('/')[2].lower()))


def not_found(scores: Scores, known: Scores, everywhere: bool = False) -> dict[str, float]:
    """Metrics of a detector that its evaluator did not return, because nothing was found: of what
    is there, a precision of 0. Of several data sets or evaluators (``'<data set>/coco/bbox_mAP'``)
    it may be so in one of them.

    Args:
        scores: What was returned.
        known: Scores under another condition. What is undefined there stays so, and errors do.
        everywhere: Whether nothing was found at all.
    """

    def of(name: str) -> str:
        return name.rpartition('/')[0]

    there = {of(name) for name in scores}
    return {
        name: 0.0
        for name, value in known.items()
        if value is not None
        and name not in scores
        and not less_is_better(name)
        and (everywhere or (there and of(name) not in there))
    }


def counted(corrupted: Corrupted) -> list[str]:
    """The corruptions that means are over: the benchmark's, or others if none of it is there."""
    return [name for name in corrupted if name in BENCHMARK] or list(corrupted)


def summarise(clean: Scores, corrupted: Corrupted, metric: str) -> dict[str, Any]:
    """Compute mPC and rPC of `Benchmarking Robustness in Object Detection`_ for one metric.

    Args:
        clean: Scores on clean images.
        corrupted: Scores on corrupted ones.
        metric: Which of them.

    Returns:
        ``P`` on clean images, ``mPC`` (mean over corruptions of the mean over severities), ``rPC``
        (mPC / P; P / mPC where less is better), ``worst`` (``corruption``
        and ``value``: the worst of the counted corruptions' means over severities), ``families``
        (mPC within each) and ``severities`` (mean over corruptions at each). ``None`` where nothing
        is defined.

    .. _Benchmarking Robustness in Object Detection: https://arxiv.org/abs/1907.07484
    """
    by_name = {
        name: mean(scores.get(metric) for scores in by_severity.values())
        for name, by_severity in corrupted.items()
    }
    names = counted(corrupted)
    severities = sorted({severity for name in names for severity in corrupted[name]}, key=int)
    performance, corrupted_mean = mean([clean.get(metric)]), mean(by_name[name] for name in names)
    left, whole = corrupted_mean, performance
    worst_of = min
    if less_is_better(metric):
        left, whole = whole, left
        worst_of = max
    defined = {name: v for name in names if (v := by_name[name]) is not None}
    worst = worst_of(defined, key=defined.__getitem__, default=None)
    return dict(
        P=performance,
        mPC=corrupted_mean,
        rPC=left / whole if whole and left is not None else None,
        worst=None if worst is None else dict(corruption=worst, value=defined[worst]),
        families={
            family: mean(by_name.get(name) for name in members)
            for family, members in FAMILIES.items()
            if any(name in corrupted for name in members)
        },
        severities={
            severity: mean(corrupted[name].get(severity, {}).get(metric) for name in names)
            for severity in severities
        },
    )


def corruption_error(
    corrupted: Corrupted, metric: str, reference: Corrupted | None = None
) -> dict[str, Any]:
    """Mean corruption error of ImageNet-C (https://arxiv.org/abs/1903.12261, section 3.1).

    The error is 100 minus the metric. For each corruption errors are added up over severities
    and divided by those of the reference; severities that one of the two lacks are left out of both
    sums.

    Args:
        corrupted: Scores in percent, more is better.
        metric: Which of them.
        reference: Scores of the reference model, which has mCE 1 (AlexNet in the paper).

    Returns:
        ``mCE`` and its terms ``CE`` as ratios; without a reference ``mean_error`` and its terms
        ``errors``, in the unit of the metric. ``None`` where the reference makes no error, or
        nothing is defined.
    """
    terms: dict[str, float | None] = {}
    for name, by_severity in corrupted.items():
        own = {s: _error(scores, metric) for s, scores in by_severity.items()}
        if reference is None:
            terms[name] = mean(own.values())
            continue
        theirs = {s: _error(v, metric) for s, v in reference.get(name, {}).items()}
        pairs = [(a, theirs.get(s)) for s, a in own.items() if a is not None]
        both = [(a, b) for a, b in pairs if b is not None]
        total = math.fsum(b for _, b in both)
        terms[name] = math.fsum(a for a, _ in both) / total if total else None
    value = mean(terms[name] for name in counted(corrupted))
    if reference is None:
        return dict(mean_error=value, errors=terms)
    return dict(mCE=value, CE=terms)


def _error(scores: Scores, metric: str) -> float | None:
    value = mean([scores.get(metric)])
    return None if value is None else 100 - value


def complete(
    table: Mapping[str, Any],
    wanted: Sequence[tuple[str, int]] = (),
    reference: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compute the summary of a table from its scores.

    Args:
        table: With ``task``, ``clean`` and ``corrupted``; ``also``: scores on other test sets, if
            there are; ``lacks``: what the checkpoint lacks of the model, if anything.
        wanted: All conditions of the complete table, to report what is missing.
        reference: Table of the reference model of mCE.

    Returns:
        The table with corruptions and severities in order, every condition with every metric,
        ``metrics``, ``summary``, ``mCE`` and ``notes``.
    """
    every = [table['clean'], *(s for by in table['corrupted'].values() for s in by.values())]
    metrics = list(dict.fromkeys(name for scores in every for name in scores))
    known: dict[str, float | None] = {}
    if table['task'] == 'detection':
        for scores in every:
            known |= {k: v for k, v in scores.items() if known.get(k) is None}
    clean = _filled(table['clean'], metrics, known)
    corrupted = {
        name: {
            severity: _filled(table['corrupted'][name][severity], metrics, known)
            for severity in sorted(table['corrupted'][name], key=int)
        }
        for name in ALL
        if table['corrupted'].get(name)
    }
    return {
        **table,
        'metrics': metrics,
        'clean': clean,
        'corrupted': corrupted,
        # Their metrics may be others.
        'also': {
            name: {metric: mean([v]) for metric, v in scores.items()}
            for name, scores in (table.get('also') or {}).items()
        },
        'summary': {metric: summarise(clean, corrupted, metric) for metric in metrics},
        'mCE': _errors(table['task'], metrics, corrupted, reference),
        'notes': [
            *filter(None, [table.get('lacks')]),
            *_nothing(metrics),
            *_unfinished(corrupted, wanted),
            *_scope(corrupted),
            *_referred({**table, 'corrupted': corrupted, 'metrics': metrics}, reference),
            *_directions(metrics),
            *_undefined(clean, corrupted, metrics),
        ],
    }


def _nothing(metrics: Sequence[str]) -> list[str]:
    if metrics:
        return []
    return [
        'the evaluator has returned no metric that is one number. Of a detector that finds '
        'nothing: check checkpoint, classes and score_thr; of metrics with a value for each class: '
        "ask for their mean, such as average='macro'"
    ]


def _filled(scores: Scores, metrics: Sequence[str], known: Scores) -> dict[str, float | None]:
    scores = {**scores, **not_found(scores, known, everywhere=not scores)}
    return {metric: mean([scores.get(metric)]) for metric in metrics}


def _errors(
    task: str, metrics: Sequence[str], corrupted: Corrupted, reference: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    accuracies = [metric for metric in metrics if metric.startswith('accuracy/top')]
    if task != 'classification' or not accuracies:
        return None
    scores = None if reference is None else reference['corrupted']
    return dict(
        reference=reference and dict(config=reference['config'], P=reference['clean']),
        metrics={metric: corruption_error(corrupted, metric, scores) for metric in accuracies},
    )


def _unfinished(corrupted: Corrupted, wanted: Sequence[tuple[str, int]]) -> list[str]:
    missing = [1 for name, severity in wanted if str(severity) not in corrupted.get(name, {})]
    if not missing:
        return []
    return [f'unfinished: {len(missing)} of {len(wanted)} corrupted conditions are missing']


def _scope(corrupted: Corrupted) -> list[str]:
    if not corrupted:
        return []
    names = counted(corrupted)
    full = [name for name in names if len(corrupted[name]) == len(SEVERITIES)]
    notes = []
    if set(full) != set(BENCHMARK):
        alike: dict[tuple[str, ...], list[str]] = {}
        for name in names:
            alike.setdefault(tuple(sorted(corrupted[name], key=int)), []).append(name)
        parts = [f'{", ".join(n)} at severity {", ".join(s)}' for s, n in alike.items()]
        notes.append(
            f'mPC is over {"; ".join(parts)}: published values are over 15 corruptions at 5 '
            'severities'
        )
    beside = [name for name in corrupted if name not in names]
    if beside:
        notes.append(f'not part of mPC: {", ".join(beside)}')
    return notes


def _referred(table: Mapping[str, Any], reference: Mapping[str, Any] | None) -> list[str]:
    """What a reference of mCE lacks."""
    if reference is None:
        return []
    notes = []
    asked = [metric for metric in table['metrics'] if metric.startswith('accuracy/top')]
    theirs = {m for by in reference['corrupted'].values() for s in by.values() for m in s}
    if table.get('task') != 'classification' or not asked:
        return [
            'the reference is not used: mCE is of accuracy/top... of classifiers, and this table '
            f'has {", ".join(table["metrics"]) or "no metric"}'
        ]
    if unknown := [metric for metric in asked if metric not in theirs]:
        notes.append(f'mCE of {", ".join(unknown)} is undefined: the reference has none')
    images, others = (t.get('made_with', {}).get('images') for t in (table, reference))
    if images is not None and others is not None and images != others:
        notes.append(f'mCE: the reference was tested on {others} images, this model on {images}')
    corrupted, known = table['corrupted'], reference['corrupted']
    names = counted(corrupted)
    lacking = [n for n in names if not known.get(n, {}).keys() & corrupted[n].keys()]
    if lacking:
        notes.append(
            f'mCE is over {len(names) - len(lacking)} of {len(names)} corruptions: the reference '
            f'lacks {", ".join(lacking[:5])}{", ..." if len(lacking) > 5 else ""}'
        )
    return notes


def _directions(metrics: Sequence[str]) -> list[str]:
    less = [metric for metric in metrics if less_is_better(metric)]
    return [f'less is better, and rPC is P / mPC, for {", ".join(less)}'] if less else []


def _undefined(clean: Scores, corrupted: Corrupted, metrics: Sequence[str]) -> list[str]:
    conditions = {'clean': clean} | {
        f'{name} {s}': v for name, by in corrupted.items() for s, v in by.items()
    }
    notes = []
    for metric in metrics:
        where = [label for label, scores in conditions.items() if scores[metric] is None]
        if len(where) == len(conditions):
            notes.append(f'{metric} is undefined on these data')
        elif where:
            shown = ', '.join(where[:5]) + (', ...' if len(where) > 5 else '')
            notes.append(
                f'{metric} is undefined under {len(where)} of {len(conditions)} conditions, which '
                f'means leave out: {shown}'
            )
    return notes
