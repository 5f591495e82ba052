# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Numbers of a report as tables of HTML cells, before the template lays them out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mmfeataug.evaluation import Comparison, Spread, less_is_better

from .context import Context, Label

BETTER, WORSE = (0, 114, 178), (213, 94, 0)
_MOST_OPAQUE = 0.45  # Text has to be readable on it, dark on light and light on dark.


@dataclass(frozen=True)
class Cell:
    """One number, with what a script needs to find it."""

    run: str
    metric: str
    key: str
    text: str
    value: float | None = None
    std: float | None = None
    std_text: str = ''
    n: int = 0
    difference: str = ''
    low: float | None = None
    high: float | None = None
    p: float | None = None
    background: str = ''


@dataclass
class Table:
    """Rows of cells under a head; ``of`` says to scripts which table it is."""

    head: list[Label]
    rows: list[tuple[Label, list[Cell]]] = field(default_factory=list)
    first: str = ''
    of: str = 'summary'


def decimals(spreads: Iterable[Spread | None]) -> int:
    """Two for percents, four for parts of 1."""
    return 4 if all(s is None or abs(s.mean) <= 1 for s in spreads) else 2


def make_cell(
    run: str,
    metric: str,
    key: str,
    value: Spread | None,
    baseline: Spread | None,
    places: int,
    seeds: int,
) -> Cell:
    """A number, its deviation, and its difference to that of the baseline; an undefined one is a
    dash. The number of seeds behind a value is shown where it is not that of the run.
    """
    if value is None:
        return Cell(run, metric, key, '–')
    deviation = '' if value.std is None else f'± {value.std:.{places}f}'
    if value.n != seeds:
        deviation = f'{deviation} (n={value.n})'.strip()
    difference = f'{value.mean - baseline.mean:+.{places}f}' if baseline else ''
    return Cell(
        run,
        metric,
        key,
        f'{value.mean:.{places}f}',
        value=value.mean,
        std=value.std,
        std_text=deviation,
        n=value.n,
        difference=difference,
    )


def summary_table(
    context: Context, compared: Comparison, metric: str, seeds: Mapping[str, int]
) -> Table:
    """One row a name: P, mPC, rPC, errors and families; ``seeds``: number of tables by name."""
    rows = compared.summary[metric]
    keys = list(dict.fromkeys(k for row in rows.values() for k in row))
    ordered = ['P', 'mPC', 'rPC', 'worst', *(k for k in keys if k in ('mCE', 'mean error'))]
    ordered += [k for k in (*compared.families, *compared.also) if k in keys]
    plain = [k for k in ordered if k not in ('rPC', 'mCE')]
    places = dict.fromkeys(plain, decimals(r.get(k) for r in rows.values() for k in plain))
    return spreads_table(context, rows, metric, ordered, seeds, places | {'rPC': 3, 'mCE': 3})


def spreads_table(
    context: Context,
    rows: Mapping[str, Mapping[str, Spread | None]],
    metric: str,
    keys: Sequence[str],
    seeds: Mapping[str, int],
    places: Mapping[str, int] | None = None,
    of: str = 'summary',
) -> Table:
    """One row a name, one column a key. ``seeds``: number of runs by name; ``places``: decimals by
    key, the same for all by default.
    """
    baseline, labels = context.baseline, context.labels(seeds)
    same = decimals(s for row in rows.values() for s in row.values())
    table = Table([Label(key) for key in keys], of=of)
    for name, row in rows.items():
        beside = rows.get(baseline, {}) if baseline is not None and name != baseline else {}
        cells = [
            make_cell(
                name, metric, key, row.get(key), beside.get(key),
                same if places is None else places[key], seeds[name],
            )
            for key in keys
        ]  # fmt: skip
        table.rows.append((labels[name], cells))
    return table


def heat_table(
    context: Context, compared: Comparison, metric: str, seeds: Mapping[str, int]
) -> tuple[Table, str]:
    """One row a corruption, one column a name, coloured by the difference to the baseline.

    Returns:
        The table, and the difference that the fullest colour stands for.
    """
    baseline, labels = context.baseline, context.labels(seeds)
    columns = compared.corruptions[metric]
    places = decimals(s for column in columns.values() for s in column.values())
    base = columns.get(baseline, {}) if baseline is not None else {}
    names = list(dict.fromkeys(c for column in columns.values() for c in column))

    def difference(name: str, corruption: str) -> float:
        own, other = columns[name].get(corruption), base.get(corruption)
        return own.mean - other.mean if own and other else 0.0

    most = max((abs(difference(n, c)) for n in columns for c in names), default=0.0)
    gain = -1 if less_is_better(metric) else 1
    table = Table([labels[name] for name in columns], first='corruption', of='corruptions')
    for corruption in names:
        cells = []
        for name, column in columns.items():
            beside = base.get(corruption) if name != baseline else None
            cell = make_cell(
                name, metric, corruption, column.get(corruption), beside, places, seeds[name]
            )
            cells.append(_coloured(cell, gain * difference(name, corruption), most))
        table.rows.append((Label(corruption), cells))
    return table, f'{most:.{places}f}' if most else ''


def _coloured(cell: Cell, difference: float, most: float) -> Cell:
    if not difference:
        return cell
    color = BETTER if difference > 0 else WORSE
    return replace(cell, background=shade(color, abs(difference) / most))


def shade(color: tuple[int, int, int], share: float) -> str:
    """A background, from none (0) to the fullest that text can be read on (1)."""
    return f'rgba({", ".join(map(str, color))}, {_MOST_OPAQUE * share:.3f})'
