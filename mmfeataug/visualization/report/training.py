# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Parts of a report that come from the logs of training: curves and cost."""

from collections.abc import Callable, Mapping, Sequence

from mmfeataug.evaluation import (
    Curve,
    Record,
    Run,
    Spread,
    clean_loss,
    cost,
    label_of,
    method_scalars,
    spread,
    view_losses,
)

from .context import Context, Label
from .figures import draw_training
from .parts import Block, Part
from .tables import Cell, Table, make_cell

_BESIDE: tuple[tuple[str, Callable[[Sequence[Record], int], dict[str, Curve]], str], ...] = (
    ('view losses', view_losses, 'Losses of the views, each as weighted in the total.'),
    (
        'method scalars',
        method_scalars,
        'What methods log beside losses. linf and l2: norms of the change of the feature (l2: mean '
        "over samples); shift: mean absolute shift of the channels' means; rise: loss of a view "
        'minus the clean loss, the largest over views; dropped: views left out because they were '
        'not finite; active: share of iterations so far that had views; clean_weight: mean factor '
        'of the clean loss so far.',
    ),
)


def training_part(context: Context) -> Part | None:
    """Curves of the logs."""
    task, groups, pictures = context.task, context.groups, context.pictures
    logged = {name: [run for run in runs if run.log] for name, runs in groups.items()}
    logged = {name: runs for name, runs in logged.items() if runs}
    if not logged:
        return None
    part = Part(pictures.anchor(f'{task}-training'), 'Training')
    silent = [label_of(run, runs) for runs in groups.values() for run in runs if not run.log]
    part.notes = [f'{label} has no log of training' for label in silent]
    clean = {n: [clean_loss(r.log, r.window) for r in runs] for n, runs in logged.items()}
    drawn = [
        pictures.add(
            f'{task}-clean-loss',
            draw_training({'clean loss': clean}, 'clean loss', context.style),
            'Total of the stock terms on clean images. The weight that a method gives them beside '
            'its views (clean_weight) is divided out, so that all curves are on one scale.',
            'Clean loss over iterations',
            wide=True,
        )
    ]
    for word, of, caption in _BESIDE:
        panels, zero = _panels(logged, of)
        if zero:
            caption += f' Not drawn, because they stayed 0: {", ".join(zero)}.'
        if panels:
            figure = draw_training(panels, '', context.style)
            drawn.append(
                pictures.add(
                    f'{task}-{word}', figure, caption, f'{word} over iterations', wide=True
                )
            )
    part.blocks = [Block('figures', pictures=drawn)]
    return part


def _panels(
    logged: Mapping[str, Sequence[Run]], of: Callable[[Sequence[Record], int], dict[str, Curve]]
) -> tuple[dict[str, dict[str, list[Curve]]], list[str]]:
    """Curves of seeds by scalar and name; and scalars that are 0 everywhere, left out."""
    panels: dict[str, dict[str, list[Curve]]] = {}
    for name, runs in logged.items():
        for run in runs:
            for key, curve in of(run.log, run.window).items():
                panels.setdefault(key, {}).setdefault(name, []).append(curve)
    zero = [
        key
        for key, by_name in panels.items()
        if not any(value for seeds in by_name.values() for curve in seeds for _, value in curve)
    ]
    return {key: panel for key, panel in panels.items() if key not in zero}, zero


def cost_part(context: Context) -> Part | None:
    """Seconds and memory, and their ratios to the baseline."""
    groups, baseline = context.groups, context.baseline
    costs = {name: [cost(run.log) for run in runs if run.log] for name, runs in groups.items()}
    costs = {name: found for name, found in costs.items() if any(found)}
    if not costs:
        return None
    units = {'seconds': ('s / iteration', 3), 'memory': ('memory, MiB', 0)}
    keys = [k for k in units if any(k in c for found in costs.values() for c in found)]
    spreads = {
        name: {k: spread(c.get(k) for c in found) for k in keys} for name, found in costs.items()
    }
    base = spreads.get(baseline) if baseline is not None else None
    table = Table([], of='cost')
    for key in keys:
        table.head += [Label(units[key][0]), *([Label(f'× {baseline}')] if base else [])]
    for name, row in spreads.items():
        seeds = len(costs[name])
        cells: list[Cell] = []
        for key in keys:
            own = row[key]
            cells.append(make_cell(name, 'cost', key, own, None, units[key][1], seeds))
            if base:
                other = base[key]
                ratio = Spread(own.mean / other.mean, None, own.n) if own and other else None
                cells.append(make_cell(name, 'cost', f'{key} ratio', ratio, None, 2, seeds))
        table.rows.append((context.labels({name: seeds})[name], cells))
    return Part(
        context.pictures.anchor(f'{context.task}-cost'),
        'Cost of training',
        how='Seconds: median over the records of a log, data loading included. Memory: the most '
        'that was logged.',
        notes=[
            'These times are no benchmark: runs made at different moments, or beside others on one '
            'machine, are not comparable. docs/cost.md says how cost is measured.'
        ],
        blocks=[Block('table', table=table)],
    )
