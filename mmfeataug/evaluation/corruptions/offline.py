# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Robustness table from saved predictions, without the model."""

import copy
import os.path as osp
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from ..predictions import read_predictions
from ..scores import count_tested_only
from ..unfinished import CLEAN, RefusedError, fingerprint, label
from .run_table import RunTable, predictions_file

KEPT = ('checkpoint', 'size', 'mtime', 'libraries')
"""What the table takes over from the predictions."""

REMEDY = (
    'make them by --save-predictions, or choose fewer by --corruptions, --severities and --also'
)


def evaluate_offline(
    folder: str | Path,
    open_table: Callable[[str, dict[str, Any]], RunTable],
    cfg: Config,
    others: Mapping[str, Any],
    checkpoint: str | None = None,
) -> RunTable:
    """Evaluate predictions that :class:`CorruptionTestLoop` wrote.

    Args:
        folder: Folder of the predictions.
        open_table: Opens the table that is filled, for a checkpoint and what it is made with.
        cfg: Its test evaluator need not be the one that the predictions were made with.
        others: Evaluators of other test sets, by their names.
        checkpoint: Required checkpoint of the predictions; None: any.

    Raises:
        RefusedError: If predictions are missing, or are of several checkpoints, or of another one.
    """
    clean = predictions_file(Path(folder), CLEAN)
    if not clean.is_file():
        raise RefusedError(f'{folder} has no predictions on clean images: {REMEDY}')
    head = read_predictions(clean).head
    if checkpoint and osp.realpath(checkpoint) != osp.realpath(head['checkpoint']):
        raise RefusedError(f'{folder} has predictions of {head["checkpoint"]}, not of {checkpoint}')
    weights = _weights(head)
    record = open_table(head['checkpoint'], {**fingerprint(cfg, ''), **weights})
    files = {c: predictions_file(Path(folder), c) for c in record.conditions}
    if missing := [label(c) for c, path in files.items() if not path.is_file()]:
        raise RefusedError(
            f'{folder} lacks predictions of {len(missing)} of {len(files)} conditions '
            f'({", ".join(missing[:5])}{", ..." if len(missing) > 5 else ""}): {REMEDY}'
        )
    record.table['task'] = head['task']
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
        own = cfg.test_evaluator if corrupted_or_clean else others[name]
        # It asks nothing of a runner.
        evaluator = Runner.build_evaluator(None, copy.deepcopy(own))  # type: ignore[arg-type]
        evaluator.dataset_meta = predictions.dataset_meta
        count_tested_only(evaluator, predictions)
        metrics = evaluator.offline_evaluate(predictions)
        record.add(condition, metrics, predictions.found(), time.monotonic() - start)
    record.save()
    return record


def _origin(head: Mapping[str, Any]) -> dict[str, Any]:
    """What predictions of one run have in common."""
    return {**_weights(head), 'config': head['made_with'].get('config')}


def _weights(head: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a checkpoint from others."""
    made_with = head['made_with']
    return {key: made_with[key] for key in KEPT if key in made_with}
