# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The first part of a report: is it better, is it sure, what does it cost."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from mmfeataug.evaluation import (
    Against,
    Comparison,
    Difference,
    Run,
    Spread,
    against,
    cost,
    less_is_better,
    method_scalars,
    spread,
    view_losses,
)

from .context import Context, Label
from .figures import draw_frontier
from .parts import Block, Part
from .tables import BETTER, WORSE, Cell, Table, decimals, shade

_HOW = (
    'Differences to {baseline}, seed by seed. Brackets: 95 % confidence interval ({interval}). p: '
    'two-sided sign-flip test; with fewer than six pairs it cannot fall below 0.05, whatever the '
    'values are. Many rows and columns are many tests: one of twenty is below 0.05 by chance. '
    'Coloured cells are those with p below 0.05 and an interval without 0.'
)


def verdict_part(
    context: Context, one: Comparison, several: bool, images: Mapping[str, Mapping[str, Difference]]
) -> Part | None:
    """What can be said at first sight of one comparison, of ``several`` of the task or alone.

    Differences over ``images``, by name and key, are shown for names with one run.
    """
    baseline = context.baseline
    if baseline not in one.names or len(one.names) < 2 or not one.metrics:
        return None
    metric = one.metrics[0]
    found = against(one, metric, baseline)
    for name, by_key in images.items():
        if name in found and len(one.runs[name]) == 1:
            found[name].differences.update(by_key)
    pairs = {a.differences['P'].n for a in found.values() if 'P' in a.differences}
    interval = "Student's t over pairs" if max(pairs, default=0) > 1 else 'none for one pair'
    if images:
        interval = 'bootstrap over the test images, which says nothing of another training'
    where = f'{context.task}-{one.folder}' if several else context.task
    costs = {name: _cost(context, name) for name in one.names}
    part = Part(
        context.pictures.anchor(f'{where}-verdict'),
        f'At a glance: {one.folder}' if several else 'At a glance',
        how=f'{metric}. ' + _HOW.format(baseline=baseline, interval=interval),
        notes=[f'{name}: {a.note}' for name, a in found.items() if a.note],
    )
    part.blocks = [
        Block('table', table=_answers(context, found, metric, costs)),
        Block('table', 'Differences', _near(context, found), _differences(context, found, metric)),
    ]
    if any(one.summary[metric][name].get('mPC') for name in one.names):
        measured = {name: value for name, (value, _) in costs.items() if value is not None}
        figure = draw_frontier(one.summary[metric], measured, metric, context.style)
        better = 'Less' if less_is_better(metric) else 'More'
        caption = (
            f'{metric} under corruption (mPC) over {metric} on clean images, and over the cost of '
            f'training. {better} is better, of cost less; the dotted line joins what no other '
            'beats in both. Bars: standard deviation over seeds.'
        )
        picture = context.pictures.add(
            f'{where}-frontier', figure, caption, 'Clean, corrupted and cost', wide=True
        )
        part.blocks.append(Block('figures', pictures=[picture]))
    return part


def _cost(context: Context, name: str) -> tuple[float | None, str]:
    """Cost of the training of a name in steps of the baseline, and in words how it is known."""
    baseline, runs = context.baseline, context.groups[name]
    assert baseline is not None
    others = context.groups[baseline]
    longer = _longer(runs, others, lambda run: 1)
    words = '' if longer in (None, 1.0) else f', in {longer:.2f} × as many iterations'
    measured = _mean(run.stock_steps for run in runs)
    if measured is not None:
        # A stock step is one of the run's own batch size.
        images = _longer(runs, others, lambda run: run.batch_size) or longer or 1.0
        if not math.isclose(images, longer or 1.0):
            words += f', on {images:.2f} × as many images'
        return measured * images, f'{measured:.2f} stock steps{words}'
    # Without a method a step is a stock step.
    of_base = _mean(run.stock_steps for run in others)
    if of_base is None and not any(view_losses(r.log) or method_scalars(r.log) for r in others):
        of_base = 1.0
    if of_base is None:
        return None, f'not known: {baseline} has a method and no cost.json'
    if name == baseline:
        return of_base, f'{of_base:.2g}'
    times = [_mean(cost(r.log).get('seconds') for r in of if r.log) for of in (runs, others)]
    ratio = _ratio(*times)
    if ratio is None:
        return None, 'not known: neither cost.json nor logs'
    total = ratio * of_base * (longer or 1.0)
    return total, f'{ratio:.2f} × {baseline}, by the times in logs{words}'


def _longer(
    runs: Iterable[Run], others: Iterable[Run], step: Callable[[Run], int | None]
) -> float | None:
    """Ratio of the lengths of trainings, in what ``step`` says of an iteration."""
    lengths = (
        _mean(size * run.log[-1]['iter'] if (size := step(run)) else None for run in of if run.log)
        for of in (runs, others)
    )
    return _ratio(*lengths)


def _mean(values: Iterable[float | None]) -> float | None:
    found = spread(values)
    return found.mean if found else None


def _ratio(value: float | None, other: float | None) -> float | None:
    return value / other if value is not None and other else None


def _answers(
    context: Context,
    found: Mapping[str, Against],
    metric: str,
    costs: Mapping[str, tuple[float | None, str]],
) -> Table:
    """One row a name, one column a question."""
    heads = ('is it better?', 'is it sure?', 'what does it cost?')
    table = Table([Label(head) for head in heads], of='answers')
    keys = {'mPC': 'under corruption', 'P': 'clean'}
    places = _places(found)
    for name, of_name in found.items():
        known = {key: of_name.differences[key] for key in keys if key in of_name.differences}
        better = [f'{keys[key]} {d.mean:+.{places}f}' for key, d in known.items()]
        sure = [f'{keys[key]}: {_sure(d, metric)}' for key, d in known.items()]
        cells = [
            Cell(name, metric, 'better', ', '.join(better) or '–'),
            Cell(name, metric, 'sure', '; '.join(sure) or '–'),
            Cell(name, metric, 'cost', costs[name][1], value=costs[name][0], n=1),
        ]
        table.rows.append((_label(context, name, of_name), cells))
    return table


def _sure(difference: Difference, metric: str) -> str:
    words = difference.verdict(less_is_better(metric))
    return words if difference.p is None else f'{words} (p {difference.p:.2g})'


def _label(context: Context, name: str, of_name: Against) -> Label:
    n = _pairs(of_name)
    return Label(name, context.style[name].color, f'{n} pair{"s" if n != 1 else ""}')


def _pairs(of_name: Against) -> int:
    """The most of any column: a test set may be there for some seeds only."""
    return max((d.n for d in of_name.differences.values()), default=0)


def _places(found: Mapping[str, Against]) -> int:
    every = [d for a in found.values() for k, d in a.differences.items() if k != 'rPC']
    return decimals(Spread(d.mean, None, d.n) for d in every)


def _differences(context: Context, found: Mapping[str, Against], metric: str) -> Table:
    """One row a name; clean, corrupted, worst, families, and near and far from the training."""
    columns: dict[str, str] = {'P': 'clean', 'mPC': 'mPC', 'worst': 'worst corruption'}
    columns |= {'near': 'mPC, trained near', 'far': 'mPC, not trained near'}
    rows = {
        # Of unseen corruptions only those that are far from the training.
        name: {k: d for k, d in a.differences.items() if k != 'unseen'}
        | {k: d for k in ('near', 'far', 'unseen') if (d := getattr(a, k))}
        for name, a in found.items()
    }
    if not any('near' in row for row in rows.values()):
        # All are far then, as under mPC.
        del columns['near'], columns['far']
        for row in rows.values():
            row.pop('far', None)
    columns['unseen'] = 'unseen, not trained near'
    columns |= {k: k for row in rows.values() for k in row if k not in (*columns, 'rPC', 'mCE')}
    columns = {k: title for k, title in columns.items() if any(k in row for row in rows.values())}
    table = Table([Label(title) for title in columns.values()], of='differences')
    places = _places(found)
    for name, row in rows.items():
        n = _pairs(found[name])
        cells = [_cell(name, metric, key, row.get(key), places, n) for key in columns]
        table.rows.append((_label(context, name, found[name]), cells))
    return table


def _cell(name: str, metric: str, key: str, d: Difference | None, places: int, pairs: int) -> Cell:
    if d is None:
        return Cell(name, metric, f'{key} difference', '–')
    spread = [] if d.low is None else [f'[{d.low:.{places}f}, {d.high:.{places}f}]']
    if d.n != pairs:
        spread.append(f'{d.n} pair{"s" if d.n != 1 else ""} only')
    cell = Cell(
        name,
        metric,
        f'{key} difference',
        f'{d.mean:+.{places}f}',
        value=d.mean,
        n=d.n,
        low=d.low,
        high=d.high,
        p=d.p,
        std_text=', '.join(spread),
        difference='' if d.p is None else f'p {d.p:.2g}',
    )
    if not d.sure:
        return cell
    gain = (d.mean > 0) != (less_is_better(metric) or key == 'mean error')
    return replace(cell, background=shade(BETTER if gain else WORSE, 1.0))


def _near(context: Context, found: Mapping[str, Against]) -> str:
    """What the columns on training near corruptions are about."""
    blind = [n for n, runs in context.groups.items() if not any(run.config for run in runs)]
    words = [f'No config is known of {", ".join(blind)}.'] if blind else []
    near = {name: a.seen for name, a in found.items() if a.seen}
    words += [
        f'{name} or its baseline trained near {", ".join(of)}, by the steps in their configs.'
        for name, of in near.items()
    ]
    if not words:
        words = ['As far as configs say, none was trained on images changed like these.']
    return ' '.join(words)
