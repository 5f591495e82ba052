# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Training runs on disk: content of work directories, and runs that differ by seed only."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmfeataug.utils.configs import scope_of
from mmfeataug.utils.tasks import TASKS

from ..report import ATTACKED, JSON, SETTINGS, read_json, read_table
from .logs import Record, log_files, read_log
from .trained_on import trained_on

UNKNOWN = 'unknown task'
COST = 'cost.json'


@dataclass(frozen=True)
class Run:
    """One work directory.

    Attributes:
        name: Name; runs that differ by seed only share it.
        folder: The directory.
        tables: Tables of robustness, by the folder they lie in, relative to ``folder``.
        attacks: Results of attacks, in the same way.
        log: Training records in the order of iterations.
        config: Config of the training that mmengine dumped, if it is there.
        title: Name of the config.
        scope, window: Settings in the config.
        seed: ``randomness.seed`` in it.
        batch_size: Images of an iteration, by the config; None of a run with several processes,
            whose number it does not say.
        trained_on: See :func:`~mmfeataug.evaluation.comparison.trained_on.trained_on`.
        stock_steps: What a training step costs, from ``cost.json``.
        notes: Notes on files that could not be used.
    """

    name: str
    folder: Path
    tables: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    attacks: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    log: Sequence[Record] = ()
    config: Path | None = None
    title: str | None = None
    scope: str | None = None
    window: int = 10
    seed: int | None = None
    batch_size: int | None = None
    trained_on: Mapping[str, Sequence[str]] = field(default_factory=dict)
    stock_steps: float | None = None
    notes: Sequence[str] = ()

    @property
    def tasks(self) -> list[str]:
        """Tasks of its tables and attacks; without these, of its config."""
        found = [t['task'] for t in (*self.tables.values(), *self.attacks.values())]
        guessed = TASKS.get(self.scope or '', UNKNOWN)
        return list(dict.fromkeys(task for task in found if task)) or [guessed]

    @property
    def checkpoint(self) -> Path | None:
        """The file that a table was made from, else the last one, if it can be found."""
        last = self.folder / 'last_checkpoint'
        named = [table['checkpoint'] for table in (*self.tables.values(), *self.attacks.values())]
        if last.is_file():
            named.append(last.read_text().strip())
        # A directory may have been moved since.
        places = [p for name in named if name for p in (Path(name), self.folder / Path(name).name)]
        return next((place for place in places if place.is_file()), None)


def read_runs(specs: Iterable[str]) -> list[Run]:
    """Read work directories, each given as ``'DIR'`` or ``'NAME=DIR'``.

    Raises:
        ValueError: If one does not exist, holds nothing to show, is there twice, or has a file that
            cannot be read; the message names it.
    """
    runs: list[Run] = []
    for spec in specs:
        name, equals, path = spec.partition('=')
        if not equals or os.path.isdir(spec):
            name, path = '', spec
        run = read_run(path, name or None)
        twin = next((r for r in runs if r.folder.resolve() == run.folder.resolve()), None)
        if twin:
            raise ValueError(f'{path} is there twice: a run would count as two seeds')
        runs.append(run)
    return runs


def read_run(folder: str | os.PathLike, name: str | None = None) -> Run:
    """What a work directory holds.

    Args:
        folder: Work directory of mmengine. Tables (``robustness.json``) and attacks
            (``adversarial.json``) may lie at any depth.
        name: The name of its config by default.

    Raises:
        ValueError: As :func:`read_runs` does.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f'{folder} is no directory: give work directories of training runs')
    tables = {_relative(p, folder): read_table(p) for p in sorted(folder.rglob(JSON))}
    attacks = {_relative(p, folder): _read_attack(p) for p in sorted(folder.rglob(ATTACKED))}
    log = read_log(folder)
    if not (tables or attacks or log):
        raise ValueError(
            f'{folder} has nothing to show: no {JSON}, no {ATTACKED} and no '
            '<time>/vis_data/*.json with training records'
        )
    # Attacks know the path of the config, tables its name.
    titles = [str(table['config']) for table in tables.values()]
    titles += [Path(result['config']).stem for result in attacks.values() if result['config']]
    config, title = _find_config(folder, titles)
    settings = _settings(config)
    notes = [*settings.pop('notes', ()), *_replaced((*tables.values(), *attacks.values()))]
    return Run(
        name or (titles[0] if titles else title or folder.resolve().name),
        folder,
        tables,
        attacks,
        log,
        config,
        title,
        stock_steps=_read_cost(folder / COST),
        notes=notes,
        **settings,
    )


def _replaced(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Checkpoints that are no longer what was tested."""
    found = []
    for result in results:
        path, made = Path(result['checkpoint']), result['made_with']
        if 'mtime' in made and path.is_file():
            stat = path.stat()
            if (stat.st_size, stat.st_mtime_ns) != (made['size'], made['mtime']):
                found.append(
                    f'{path} was written again since it was tested: the figures are of the earlier '
                    'file, examples of the new one; test it again'
                )
    return list(dict.fromkeys(found))


def _relative(path: Path, folder: Path) -> str:
    return path.parent.relative_to(folder).as_posix()


def _read_attack(path: Path) -> dict[str, Any]:
    needed = ('config', 'checkpoint', 'task', 'made_with', 'curve', *SETTINGS)
    result = read_json(path, 'result of an attack', needed)
    if not result['curve']:
        raise ValueError(f'{path} is no result of an attack: it has no point on its curve')
    return result


def _find_config(folder: Path, titles: Sequence[str]) -> tuple[Path | None, str | None]:
    """What the training was made with, and its name. Tools that test in the same directory dump
    their own config over the one beside the checkpoints.
    """
    found = sorted(folder.glob('*.py'), key=lambda p: (p.stem in titles, p.stat().st_mtime))
    last = found[-1] if found else None
    logs = reversed(log_files(folder))
    trained = (log.with_name('config.py') for log in logs if '"iter"' in log.read_text())
    config = next((path for path in trained if path.is_file()), last)
    return config, last.stem if last else None


def _settings(config: Path | None) -> dict[str, Any]:
    """What a config says of its training, and what went wrong when it was read."""
    if config is None:
        return {}
    try:
        cfg = Config.fromfile(config, import_custom_modules=False)
    except Exception as error:  # A config is a program.
        return dict(notes=[f'{config} cannot be read: {type(error).__name__}: {error}'])
    return dict(
        scope=scope_of(cfg),
        # Iterations that logged losses are means over.
        window=int((cfg.get('log_processor') or {}).get('window_size', 10)),
        seed=(cfg.get('randomness') or {}).get('seed'),
        batch_size=(
            (cfg.get('train_dataloader') or {}).get('batch_size')
            if cfg.get('launcher', 'none') == 'none'
            else None
        ),
        trained_on=trained_on(cfg),
    )


def _read_cost(path: Path) -> float | None:
    """Stock steps that a training step costs."""
    if not path.is_file():
        return None
    what = 'result of tools/analysis_tools/measure_cost.py'
    return float(read_json(path, what, ['stock_steps'])['stock_steps'])


def by_task(runs: Iterable[Run]) -> dict[str, dict[str, list[Run]]]:
    """Group runs by task and name, in their order.

    A run whose task nothing tells belongs to the only task of the others, if there is one.
    """
    runs = list(runs)
    known = list(dict.fromkeys(t for run in runs for t in run.tasks if t != UNKNOWN))
    groups: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        tasks = known if run.tasks == [UNKNOWN] and len(known) == 1 else run.tasks
        for task in tasks:
            groups.setdefault(task, {}).setdefault(run.name, []).append(run)
    return groups


def label_of(run: Run, seeds: Sequence[Run]) -> str:
    """Name of a run, with its seed if there are several of that name."""
    return f'{run.name} {seed_of(run, seeds)}'.strip()


def seed_of(run: Run, seeds: Sequence[Run]) -> str:
    """``'seed <number>'``: that of its config, or its place among the runs of its name where not
    each has one of its own; empty for a single run.
    """
    if len(seeds) == 1:
        return ''
    if distinct_seeds(seeds):
        return f'seed {run.seed}'
    return f'seed {next(i for i, other in enumerate(seeds, 1) if other is run)}'


def distinct_seeds(runs: Sequence[Run]) -> bool:
    """Whether each run has a seed of its own in its config."""
    known = [run.seed for run in runs]
    return None not in known and len(set(known)) == len(known)
