# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Robustness table from saved predictions, without the model."""

import os.path as osp
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..predictions import read_predictions
from ..robustness import SEVERITIES
from ..unfinished import CLEAN, RefusedError, fingerprint, label, read_reference
from .corruption import conditions_of
from .other_sets import read_other_sets
from .run_table import RunTable, predictions_file

KEPT = ('checkpoint', 'size', 'mtime', 'libraries')
"""What the table takes over from the predictions."""

REMEDY = (
    'make them by --save-predictions, or choose fewer by --corruptions, --severities and --also'
)


def evaluate_offline(
    folder: str | Path,
    cfg: Config,
    out_dir: str | Path,
    *,
    corruptions: Sequence[str] = ('benchmark',),
    severities: Sequence[int] = SEVERITIES,
    also: Mapping[str, str] | None = None,
    reference: str | None = None,
    resume: bool = False,
    checkpoint: str | None = None,
) -> dict[str, Any]:
    """Evaluate predictions that :class:`CorruptionTestLoop` wrote.

    Args:
        folder: Folder of the predictions.
        cfg: Its test evaluator need not be the one that the predictions were made with.
        out_dir: Folder of the table.
        corruptions, severities, also, reference, resume: As of :class:`CorruptionTestLoop`.
        checkpoint: Required checkpoint of the predictions; None: any.

    Returns:
        The table.

    Raises:
        RefusedError: If predictions are missing, or are of several checkpoints, or of another one,
            or the table is of another run.
        ValueError: For invalid settings.
    """
    wanted, others = conditions_of(corruptions, severities), read_other_sets(also or {})
    table = read_reference(reference, wanted) if reference else None
    clean = predictions_file(Path(folder), CLEAN)
    if not clean.is_file():
        raise RefusedError(f'{folder} has no predictions on clean images: {REMEDY}')
    head = read_predictions(clean).head
    if checkpoint and osp.realpath(checkpoint) != osp.realpath(head['checkpoint']):
        raise RefusedError(f'{folder} has predictions of {head["checkpoint"]}, not of {checkpoint}')
    made_with = {**fingerprint(cfg, ''), **_weights(head)}
    made_with['also'] = {name: s.digest for name, s in others.items()}
    name = osp.splitext(osp.basename(cfg.filename or ''))[0]
    record = RunTable(out_dir, name, head['checkpoint'], made_with, wanted, table, resume)
    files = {c: predictions_file(Path(folder), c) for c in record.conditions}
    if missing := [label(c) for c, path in files.items() if not path.is_file()]:
        raise RefusedError(
            f'{folder} lacks predictions of {len(missing)} of {len(files)} conditions '
            f'({", ".join(missing[:5])}{", ..." if len(missing) > 5 else ""}): {REMEDY}'
        )
    record.table |= {key: head[key] for key in ('task', 'lacks') if key in head}
    for condition in record.pending():
        start = time.monotonic()
        predictions = read_predictions(files[condition])
        if _origin(predictions.head) != _origin(head):
            raise RefusedError(
                f'{files[condition]} is of another checkpoint or config than {clean}: delete what '
                'is old in the folder, and make it again by --save-predictions'
            )
        name, severity = condition
        corrupted_or_clean = severity or condition == CLEAN
        if corrupted_or_clean:
            record.count(len(predictions))
        own = cfg if corrupted_or_clean else others[name].cfg
        metrics = predictions.evaluate(own.test_evaluator)
        record.add(condition, metrics, predictions.found(), time.monotonic() - start)
    record.save()
    return record.table


def _origin(head: Mapping[str, Any]) -> dict[str, Any]:
    """What predictions of one run have in common."""
    return {**_weights(head), 'config': head['made_with'].get('config')}


def _weights(head: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a checkpoint from others."""
    made_with = head['made_with']
    return {key: made_with[key] for key in KEPT if key in made_with}
