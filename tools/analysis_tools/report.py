# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Compare training runs on one page: what corruptions and attacks cost them, how they were trained,
what they see. Takes work directories with what tools/train.py, tools/test_robustness.py and
tools/test_adversarial.py left in them; docs/report.md says more."""

import argparse
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmfeataug.evaluation import (
    PREDICTIONS,
    Run,
    by_task,
    compare_tables,
    image_differences,
    read_runs,
)
from mmfeataug.utils.configs import data_sets, scope_of, set_workers, type_name
from mmfeataug.utils.progress import progress_bar
from mmfeataug.utils.results import results_on_stdout
from mmfeataug.visualization import draw_predictions, render_predictions, spread_indices
from mmfeataug.visualization.report import Examples, write_report

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import (
    add_corruption_argument,
    check_corruptions,
    check_data,
    start,
    under_conditions,
)

CORRUPTIONS = (('gaussian_noise', '3'), ('defocus_blur', '3'))
MOST = 3


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'runs',
        nargs='+',
        metavar='[NAME=]DIR',
        help='work directories; those of one name are seeds of one thing. The name of the config '
        'by default',
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/report'), metavar='DIR')
    parser.add_argument('--title', default='Comparison of training runs')
    parser.add_argument(
        '--baseline', metavar='NAME', help='what differences are to; the first run by default'
    )
    parser.add_argument(
        '--examples',
        type=int,
        default=3,
        metavar='N',
        help='images to show predictions on; 0: none. Needs configs, checkpoints and test data',
    )
    parser.add_argument(
        '--resamples',
        type=int,
        metavar='N',
        help='how often test images are drawn again for the interval of a difference, where '
        'baseline and name have one run each and kept their predictions; 0: no such interval. '
        '200 by default, if that takes less than ten minutes',
    )
    add_corruption_argument(
        parser,
        f'of the examples, beside clean images; may be there {MOST} times. '
        f'{", ".join(map(" ".join, CORRUPTIONS))} by default',
    )
    args = parser.parse_args(argv)
    if args.examples < 0:
        parser.error(f'--examples {args.examples}: give a number of images, or 0')
    if args.resamples is not None and args.resamples < 0:
        parser.error(f'--resamples {args.resamples}: give a number of draws, or 0')
    args.corruption = check_corruptions(parser, args.corruption or CORRUPTIONS)
    if len(args.corruption) > MOST:
        parser.error(f'--corruption is there {len(args.corruption)} times: at most {MOST}')
    return args


def find_models(
    groups: Mapping[str, Sequence[Run]], corruptions: Sequence[tuple[str, int]]
) -> tuple[dict[str, Config], dict[str, str], dict[str, dict], list[str]]:
    """Config, checkpoint and test data loaders of the first seed that has both, by name; and what
    is missing.
    """
    configs, checkpoints, loaders, notes = {}, {}, {}, []
    for name, runs in groups.items():
        run = next((r for r in runs if r.config and r.checkpoint), None)
        if run is None or run.config is None:
            what = 'checkpoint' if any(r.config for r in runs) else 'config'
            notes.append(f'{name} is not shown: no {what} in {runs[0].folder}')
            continue
        try:
            cfg = Config.fromfile(run.config)
            check_data(cfg, ('test_dataloader',))
            cfg.default_scope = scope_of(cfg) or 'mmengine'
            set_workers(cfg.test_dataloader)
            loaders[name] = under_conditions(cfg, corruptions)
        except (Exception, SystemExit) as error:
            notes.append(f'{name} is not shown: {error}')
            continue
        configs[name], checkpoints[name] = cfg, str(run.checkpoint)
    return configs, checkpoints, loaders, notes


def same_data(configs: Mapping[str, Config]) -> list[str]:
    """A note on each run whose test images are not those of the first."""

    def images(cfg: Config) -> list[dict]:
        left_out = ('pipeline', 'metainfo', '_scope_')
        return [
            {k: v for k, v in dataset.items() if k not in left_out} | {'type': type_name(dataset)}
            for dataset in data_sets(cfg.test_dataloader.dataset).values()
        ]

    (first, cfg), *others = configs.items()
    return [
        f'the test set of {name} is written otherwise than that of {first}: pictures in a row may '
        'be of different images'
        for name, other in others
        if images(other) != images(cfg)
    ]


def make_examples(
    task: str, groups: Mapping[str, Sequence[Run]], args: argparse.Namespace
) -> Examples:
    """Predictions of the runs of a task; notes on those that cannot be shown."""
    configs, checkpoints, loaders, notes = find_models(groups, args.corruption)
    if not configs:
        return Examples(notes=notes)
    examples = Examples(notes=[*notes, *same_data(configs)])
    try:
        indices = spread_indices(next(iter(configs.values())), args.examples)
    except Exception as error:
        examples.notes.append(f'the test set cannot be read: {type(error).__name__}: {error}')
        return examples
    with progress_bar(redirect_stdout=False) as progress:
        bar = progress.add_task(f'examples, {task}', total=sum(map(len, loaders.values())))
        rendered, failed = render_predictions(
            configs, checkpoints, loaders, indices, lambda: progress.advance(bar)
        )
    for name, error in failed.items():
        examples.notes.append(f'{name} is not shown: {type(error).__name__}: {error}')
    for index, pictures in rendered.items():
        if pictures:
            caption = (
                f'Test image {index} as the models get it. Columns: annotation, then what each run '
                'predicts; rows: clean, then the same image corrupted.'
            )
            examples.figures.append((draw_predictions(pictures), caption))
    return examples


def over_images(
    task: str, groups: Mapping[str, Sequence[Run]], args: argparse.Namespace
) -> tuple[dict[str, dict], list[str]]:
    """Differences with intervals over test images, by folder of tables and name; notes, also on
    what has none though ``--resamples`` asks for it.
    """
    baseline = args.baseline or next(iter(groups))
    found: dict[str, dict] = {}
    notes: list[str] = []
    (run, *more) = groups.get(baseline, [None])
    asked = (
        f'--resamples {args.resamples}: no interval over test images for {{}}. It needs one run of '
        f'{baseline} with its config, one run of the other, and of both the predictions that '
        'test_robustness.py --save-predictions keeps'
    )
    missing = [asked.format('any name')] if args.resamples else []
    if args.resamples == 0 or more or run is None or run.config is None:
        return found, missing
    compared = [
        one
        for one in compare_tables(task, groups)
        if baseline in one.names and (run.folder / one.folder / PREDICTIONS).is_dir()
    ]
    if not compared:
        return found, missing
    try:
        cfg = Config.fromfile(run.config)
        init_default_scope(scope_of(cfg) or 'mmengine')
    except Exception as error:
        return found, [f'no intervals over images: {type(error).__name__}: {error}']
    with progress_bar(redirect_stdout=False) as progress:
        bar = progress.add_task(f'draws of images, {task}', total=None)
        for one in compared:
            found[one.folder], said = image_differences(
                one, baseline, cfg, args.resamples, lambda: progress.advance(bar)
            )
            notes += said
    known = {name for of_folder in found.values() for name in of_folder}
    named = {note.partition(':')[0] for note in notes}
    others = [name for name in groups if name not in {baseline, *known, *named}]
    if args.resamples and others:
        notes.append(asked.format(', '.join(others)))
    return found, notes


@results_on_stdout
def main(out: TextIO, argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        runs = read_runs(args.runs)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    names = list(dict.fromkeys(run.name for run in runs))
    if args.baseline is not None and args.baseline not in names:
        raise SystemExit(f'--baseline {args.baseline}: choose one of {", ".join(names)}')
    examples, images = {}, {}
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    notes = []
    for task, groups in by_task(runs).items():
        images[task], said = over_images(task, groups, args)
        notes += [f'{task}: {note}' for note in said]
        if args.examples:
            examples[task] = make_examples(task, groups, args)
    for note in notes:
        print(note, file=sys.stderr)
    path = write_report(
        runs,
        args.out,
        title=args.title,
        baseline=args.baseline,
        examples=examples,
        images=images,
        notes=notes,
    )
    print(path, file=out)


if __name__ == '__main__':
    start(main)
