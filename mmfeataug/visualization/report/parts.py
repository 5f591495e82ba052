# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Parts of a report: which tables and figures stand where, and how to read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmfeataug.evaluation import (
    AttackComparison,
    Comparison,
    Spread,
    compare_attacks,
    less_is_better,
)

from .context import Context
from .figures import draw_families, draw_lines
from .pictures import Picture
from .tables import Table, heat_table, spreads_table, summary_table


@dataclass
class Block:
    """``'table'``, ``'figures'``, or ``'more'``: tables that are folded away."""

    kind: str
    title: str = ''
    how: str = ''
    table: Table | None = None
    tables: list[tuple[str, Table]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


@dataclass
class Part:
    """A heading and what stands below it; ``folder`` is that of its tables."""

    id: str
    title: str
    how: str = ''
    notes: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    folder: str | None = None


def robustness_parts(context: Context, compared: Sequence[Comparison]) -> list[Part]:
    """One part for each folder of tables."""
    task, parts = context.task, []
    for one in compared:
        several = len(compared) > 1
        where = f'{task}-{one.folder}' if several else task
        part = Part(
            context.pictures.anchor(f'{where}-corruptions'),
            f'Corruptions: {one.folder}' if several else 'Corruptions',
            how='P: on clean images. mPC: mean over corruptions of the mean over severities. '
            'rPC = mPC / P (P / mPC where less is better): the part that is left; a run can gain '
            'it by being worse on clean images. Families: mPC within each.',
            notes=[*one.missing, *one.notes],
            folder=one.folder,
        )
        parts.append(part)
        if not one.metrics:
            continue
        seeds = {n: sum(one.folder in r.tables for r in context.groups[n]) for n in one.names}
        main, *others = one.metrics
        tables = {m: summary_table(context, one, m, seeds) for m in one.metrics}
        part.blocks.append(Block('table', main, table=tables[main]))
        if others:
            more = [(metric, tables[metric]) for metric in others]
            part.blocks.append(Block('more', f'Other metrics ({len(others)})', tables=more))
        if any(one.corruptions[main].values()):
            part.blocks += _robustness_blocks(context, one, where, seeds)
    return parts


def _robustness_blocks(
    context: Context, one: Comparison, where: str, seeds: Mapping[str, int]
) -> list[Block]:
    main, pictures, style = one.metrics[0], context.pictures, context.style
    bars = ' Error bars: standard deviation over seeds.' if max(seeds.values()) > 1 else ''
    families = pictures.add(
        f'{where}-families',
        draw_families(one.summary[main], one.families, main, style),
        f'{main} on corrupted images, by family of corruptions: mean over its corruptions and '
        f'severities. {_better(main)} is better.{bars}',
        f'Bars of {main} by family of corruptions',
    )
    curves: dict[str, dict[float, Spread | None]] = {
        name: {int(s): value for s, value in curve.items()}
        for name, curve in one.severities[main].items()
    }
    severities = pictures.add(
        f'{where}-severities',
        draw_lines(curves, 'severity (0: clean)', main, style, integers=True),
        f'{main} over the severity, mean over corruptions; 0 is the clean images. A flatter line '
        f'loses less, a {_better(main).lower()} one is better.{bars}',
        f'{main} over the severity of corruptions',
    )
    table, most = heat_table(context, one, main, seeds)
    how = f'{main}, mean over severities.'
    if most:
        how += (
            f' Blue is better than {context.baseline}, orange is worse; the fullest colour stands '
            f'for a difference of {most}.'
        )
    rows = {
        name: {f'severity {s}' if int(s) else 'clean': value for s, value in curve.items()}
        for name, curve in one.severities[main].items()
    }
    keys = list(dict.fromkeys(key for row in rows.values() for key in row))
    by_severity = spreads_table(context, rows, main, keys, seeds, of='severities')
    return [
        Block('figures', pictures=[families, severities]),
        Block('table', 'By corruption', how, table=table),
        Block('more', 'Table of severities', tables=[(main, by_severity)]),
    ]


def attack_parts(context: Context) -> list[Part]:
    """One part with a figure and a table for each attack."""
    task, pictures = context.task, context.pictures
    compared = compare_attacks(task, context.groups)
    if not compared:
        return []
    part = Part(
        pictures.anchor(f'{task}-attacks'),
        'Attacks',
        how='The metric that is left when somebody who knows the weights changes images or '
        'features, over the strength of the attack. Only attacks with the same settings are in '
        'one figure. What the figures do not say (weak attacks, gradient masking) stands in '
        'docs/adversarial.md.',
    )
    drawn, tables = [], []
    for one in compared:
        title = describe_attack(one)
        if one.missing:
            part.notes.append(f'{title}: no result of {", ".join(one.missing)}')
        part.notes += [f'{title}: {note}' for note in one.notes]
        if not one.metrics:
            part.notes.append(f'{title}: no metric')
            continue
        main = one.metrics[0]
        unit = ', '.join(str(one.settings[k]) for k in ('unit', 'norm') if one.settings[k])
        figure = draw_lines(
            one.curves[main], f'eps ({unit})' if unit else 'eps', main, context.style
        )
        drawn.append(
            pictures.add(
                f'{task}-attack-{one.settings["attack"]}-{one.settings["at"]}',
                figure,
                f'{title}. {_better(main)} is better; eps 0 is the stock test.',
                f'{main} over the strength of the attack',
            )
        )
        for metric in one.metrics:
            rows = {
                name: {f'eps {eps:g}': value for eps, value in curve.items()}
                for name, curve in one.curves[metric].items()
            }
            strengths = sorted({eps for curve in one.curves[metric].values() for eps in curve})
            keys = [f'eps {eps:g}' for eps in strengths]
            seeds = {n: max((s.n for s in row.values() if s), default=1) for n, row in rows.items()}
            table = spreads_table(context, rows, metric, keys, seeds, of=f'attack: {title}')
            tables.append((f'{title}: {metric}', table))
    part.blocks = [Block('figures', pictures=drawn), Block('more', 'As tables', tables=tables)]
    return [part]


def _better(metric: str) -> str:
    return 'Lower' if less_is_better(metric) else 'Higher'


def describe_attack(one: AttackComparison) -> str:
    """Its settings in a line."""
    s = one.settings
    words = [f'{s["attack"]} at {s["at"]}']
    words += [f'{s["side"]} of it'] if s['side'] == 'input' else []
    words += [str(s['norm'])] if s['norm'] else []
    words += [f'eps in {s["unit"]}'] if s['unit'] else []
    words += ['images of {:g} to {:g}'.format(*s['image_range'])] if s['image_range'] else []
    words += [f'{s["steps"]} steps'] if s['steps'] else []
    words += [f'step size {s["step_size"]:g}'] if s['step_size'] is not None else []
    words += [f'against {", ".join(s["against"])}'] if s['against'] else []
    words += ['no random start'] if s['random_start'] is False else []
    words += [f'{s["restarts"]} random starts'] if s['restarts'] != 1 else []
    words += [f'in {one.folder}'] if one.folder else []
    return ', '.join(words)
