# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Checks whether an existing table can be resumed or compared with."""

import copy
import hashlib
import json
import os
import os.path as osp
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from mmfeataug.utils.configs import WORKERS, data_sets, dicts_in

from .report import read_table

CLEAN = ('clean', 0)
ANEW = 'Delete it to start anew, or write elsewhere with --out-dir'
OUTPUTS = ('outfile_prefix', 'output_dir')
"""Settings of evaluators that say where to write."""
_NAMES = dict(
    config='text of the config (with --cfg-options)',
    checkpoint='path of the checkpoint',
    size="checkpoint's size in bytes",
    mtime="checkpoint's time of modification",
    images='number of test images',
)


class RefusedError(ValueError):
    """Existing results cannot be used; the message has the remedy."""


def label(condition: tuple[str, int]) -> str:
    """Corruption and severity in words; the name of a test set, which has severity 0."""
    name, severity = condition
    return f'{name} {severity}' if severity else name


def is_done(table: Mapping[str, Any], condition: tuple[str, int]) -> bool:
    """Whether a table has the scores of a condition."""
    name, severity = condition
    if condition == CLEAN:
        return table['clean'] is not None
    if not severity:
        return name in table['also']
    return str(severity) in table['corrupted'].get(name, {})


def fingerprint(cfg: Config, checkpoint: str, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """Settings that must be equal to resume a table.

    Args:
        cfg: Of the run.
        checkpoint: File or address.
        left_out: Settings that may differ, beside those that say where and how it runs.
    """
    cfg = copy.deepcopy(cfg)
    for key in ('work_dir', 'launcher', 'model_wrapper_cfg', 'load_from', 'resume', *left_out):
        cfg.pop(key, None)
    made_with = dict(config=digest(cfg), test=digest_of_test(cfg))
    if '://' in checkpoint or not checkpoint:
        return dict(made_with, checkpoint=checkpoint)
    stat = os.stat(checkpoint)
    path = osp.realpath(checkpoint)
    return dict(made_with, checkpoint=path, size=stat.st_size, mtime=stat.st_mtime_ns)


def digest(cfg: Config) -> str:
    """A number that another text of a config does not have; settings of worker processes, which
    are taken away from it, change nothing.
    """
    for key in ('num_workers', *WORKERS):
        cfg.test_dataloader.pop(key, None)
    return hashlib.sha256(cfg.pretty_text.encode()).hexdigest()


def digest_of_test(cfg: Config) -> str:
    """A number for what a test measures: evaluators and data sets, however images are loaded and
    wherever files are written.
    """
    found = dict(evaluator=cfg.test_evaluator, data=data_sets(cfg.test_dataloader.get('dataset')))
    found = Config(found).to_dict()
    for one in dicts_in(found):
        for key in (*OUTPUTS, 'pipeline', '_scope_'):
            one.pop(key, None)  # type: ignore[attr-defined]
    return hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()


def refuse_other(path: str, old: Mapping[str, Any], made_with: Mapping[str, Any]) -> None:
    """Refuse to go on with a file of results that was made with something else, by what
    :func:`fingerprint` has said of both.

    Raises:
        RefusedError: Saying what is different.
    """
    for key, new in made_with.items():
        if key in _NAMES and old.get(key) != new:
            shown = '' if key == 'config' else f': {old.get(key)} there, {new} now'
            raise RefusedError(f'{path} was made with another {_NAMES[key]}{shown}. {ANEW}')
    libraries = made_with.get('libraries')
    if libraries is not None and old.get('libraries') != libraries:
        raise RefusedError(
            f'{path} was made with other versions of the libraries that corrupt images: '
            f'{old.get("libraries")} there, {libraries} now. {ANEW}'
        )
    known = old.get('also', {})
    for name, new in made_with.get('also', {}).items():
        if known.get(name, new) != new:
            raise RefusedError(f'{path} was made with another test set {name!r}. {ANEW}')


def read_reference(path: str, conditions: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Read the table of the reference classifier of mCE.

    Raises:
        ValueError: If it lacks some of the conditions.
    """
    reference = read_table(path)
    missing = [label(c) for c in conditions if not is_done(reference, c)]
    if missing:
        raise ValueError(
            f'{path} lacks {len(missing)} of {len(conditions)} conditions '
            f'({", ".join(missing[:5])}{", ..." if len(missing) > 5 else ""}): finish it, or '
            'choose fewer by --corruptions and --severities'
        )
    return reference


def check_metrics(found: Iterable[str], table: Mapping[str, Any], path: str) -> None:
    """Refuse to mix scores of two evaluators.

    Raises:
        RefusedError: If the evaluator returns a metric that the table has not.
    """
    new, gone = set(found) - set(table['metrics']), set(table['metrics']) - set(found)
    if new and table['metrics']:
        raise RefusedError(
            f'the evaluator returns other metrics than those of {path}: '
            f'{", ".join(sorted(new))} is new, {", ".join(sorted(gone)) or "nothing"} is gone. '
            f'{ANEW}'
        )
