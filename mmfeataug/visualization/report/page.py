# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""One page about any number of runs: what corruptions and attacks cost them, how they were trained,
what they see.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from mmfeataug.evaluation import Difference, Run, by_task, compare_tables, seed_of
from mmfeataug.utils.files import write_at_once
from mmfeataug.version import __version__

from .context import Context, Label
from .figures import Style, styles
from .parts import Block, Part, attack_parts, robustness_parts
from .pictures import Pictures
from .training import cost_part, training_part
from .verdict import verdict_part

PAGE, PICTURES = 'report.html', 'report_pictures'

ImageDifferences = Mapping[str, Mapping[str, Mapping[str, Difference]]]
"""By folder of the tables, name and key."""


@dataclass
class Examples:
    """Figures of predictions of one task, each with its caption."""

    figures: list[tuple[Figure, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def baseline_of(names: Sequence[str], wanted: str | None) -> str | None:
    """The name that differences of a task are to: the wanted one if it is there; the first if none
    is wanted.
    """
    if wanted is None:
        return names[0] if names else None
    return wanted if wanted in names else None


def write_report(
    runs: Sequence[Run],
    folder: str | os.PathLike,
    *,
    title: str = 'Report',
    baseline: str | None = None,
    examples: Mapping[str, Examples] | None = None,
    images: Mapping[str, ImageDifferences] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write ``report.html``, which needs no other file and no network, and its pictures as PNG.

    Args:
        runs: Of :func:`mmfeataug.evaluation.read_runs`. Those with one name are seeds.
        folder: Made if missing.
        title: Of the page.
        baseline: Name that differences are to; the first of each task by default.
        examples: Figures of predictions, by task.
        images: Differences over test images, by task, of names with one run.
        notes: To be said before all else.

    Returns:
        The page.

    Raises:
        ValueError: If there are no runs, or none has the name of the baseline.
    """
    if not runs:
        raise ValueError('no runs: give at least one')
    names = list(dict.fromkeys(run.name for run in runs))
    if baseline is not None and baseline not in names:
        raise ValueError(f'baseline {baseline!r} is no run: choose one of {", ".join(names)}')
    pictures = Pictures(Path(folder, PICTURES))
    style = styles(names, baseline or names[0])
    groups = by_task(runs)
    of_runs = dict.fromkeys(f'{r.name}: {n}' for r in runs for n in r.notes)
    tasks, messages = [], [*notes, *of_runs]
    for task, of_task in groups.items():
        base = baseline_of(list(of_task), baseline)
        if base is None:
            messages.append(
                f'{task}: {baseline} has no run here, so there are no differences to it'
            )
        shown = (examples or {}).get(task, Examples())
        context = Context(task, of_task, base, style, pictures)
        parts = _parts(context, shown, (images or {}).get(task, {}))
        tasks.append(dict(id=pictures.anchor(f'task-{task}'), title=task, parts=parts))
    rows = [
        _row(task, name, seeds, style) for task, g in groups.items() for name, seeds in g.items()
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template('page.html.j2').render(
        title=title,
        version=__version__,
        lead=_lead(groups, baseline),
        messages=messages,
        tasks=tasks,
        runs=[row for of_name in rows for row in of_name],
    )
    path = Path(folder) / PAGE
    write_at_once(path, page)
    return path


def _parts(context: Context, examples: Examples, images: ImageDifferences) -> list[Part]:
    compared = compare_tables(context.task, context.groups)
    several = len(compared) > 1
    parts = [
        *(verdict_part(context, one, several, images.get(one.folder, {})) for one in compared),
        *robustness_parts(context, compared),
        *attack_parts(context),
        training_part(context),
        _examples_part(context.task, examples, context.pictures),
        cost_part(context),
    ]
    return [part for part in parts if part is not None]


def _examples_part(task: str, examples: Examples, pictures: Pictures) -> Part | None:
    if not (examples.figures or examples.notes):
        return None
    drawn = [
        pictures.add(
            f'{task}-example', figure, caption, 'Predictions of each run', wide=True, photo=True
        )
        for figure, caption in examples.figures
    ]
    return Part(
        pictures.anchor(f'{task}-examples'),
        'Examples',
        how='Predictions on the same images, clean and corrupted, by the first seed of each name '
        'whose config and checkpoint are there, drawn by the visualizer of its framework.',
        notes=examples.notes,
        blocks=[Block('figures', pictures=drawn)] if drawn else [],
    )


def _lead(groups: Mapping[str, Mapping[str, Sequence[Run]]], baseline: str | None) -> str:
    everyone = [run for of_task in groups.values() for seeds in of_task.values() for run in seeds]
    several = any(len(seeds) > 1 for of_task in groups.values() for seeds in of_task.values())
    names = len({run.name for run in everyone})
    count = len({run.folder for run in everyone})
    firsts = list(dict.fromkeys(baseline_of(list(g), baseline) for g in groups.values()))
    lead = f'{count} {"run" if count == 1 else "runs"} under {names} '
    lead += 'name.' if names == 1 else 'names.'
    if names > 1:
        lead += f' Small figures are differences to {", ".join(f for f in firsts if f)}.'
    if several:
        lead += (
            ' Runs of one name are seeds: shown are their mean ± standard deviation '
            '(of a sample: n − 1).'
        )
    return lead


def _on_images(results: Iterable[Mapping[str, Any]]) -> str:
    made = [result['made_with'] for result in results]
    numbers = sorted({with_['images'] for with_ in made if 'images' in with_})
    return f' ({", ".join(map(str, numbers))} images)' if numbers else ''


def _row(task: str, name: str, seeds: Sequence[Run], style: Mapping[str, Style]) -> list[dict]:
    rows = []
    for run in seeds:
        kept = ((run.tables, 'table', 'of robustness'), (run.attacks, 'result', 'of attacks'))
        holds = [
            f'{len(each)} {what}{"s" if len(each) > 1 else ""} {of}{_on_images(each.values())}'
            for each, what, of in kept
            if each
        ]
        if run.log:
            holds.append(f'log to iteration {run.log[-1]["iter"]}')
        configs = [str(t['config']) for t in run.tables.values()]
        rows.append(
            dict(
                label=Label(name, style[name].color, seed_of(run, seeds)),
                task=task,
                config=', '.join(dict.fromkeys(configs)) or (run.title or '–'),
                folder=str(run.folder),
                holds=', '.join(holds),
            )
        )
    return rows
