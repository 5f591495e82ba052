# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A robustness table on disk that is filled by condition and can be resumed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process

from mmfeataug.datasets import library_version
from mmfeataug.utils.processes import of_first_process

from ..predictions import read_predictions
from ..report import JSON, read_table, write_table
from ..robustness import complete
from ..scores import read_scores
from ..unfinished import (
    ANEW,
    CLEAN,
    RefusedError,
    check_metrics,
    is_done,
    label,
    refuse_other,
)

Condition = tuple[str, int]
"""Corruption and severity, or the name of a test set and 0."""


def predictions_file(folder: Path, condition: Condition) -> Path:
    """File of the predictions under a condition."""
    return folder / f'{label(condition).replace(" ", "_")}.pkl'


def refuse_existing(folder: str | Path, resume: bool) -> None:
    """Check that no table of another run would be overwritten.

    Raises:
        RefusedError: If there is a table in the folder and ``resume`` is False.
    """
    path = Path(folder, JSON)
    if path.exists() and not resume:
        raise RefusedError(
            f'{path} is there already: go on with it by --resume (resume=True), delete it to start '
            'anew, or write elsewhere with --out-dir'
        )


class RunTable:
    """The table of one run, written to files after every condition.

    Args:
        folder: Of ``robustness.json``, ``.csv`` and ``.md``.
        config: Name of the config.
        checkpoint: File or address.
        made_with: Settings that must be equal to resume, as :func:`fingerprint` returns
            it, and ``also``: digests of other test sets, by their names.
        wanted: Corruptions and severities.
        reference: Table of the reference classifier of mCE.
        resume: Whether to continue an existing table.

    Raises:
        RefusedError: If the existing table is of another run, or there is one and ``resume`` is
            False.
        ValueError: If it is no table.
    """

    def __init__(
        self,
        folder: str | Path,
        config: str,
        checkpoint: str,
        made_with: Mapping[str, Any],
        wanted: Sequence[Condition],
        reference: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        # Other versions may draw other noise.
        made_with = {'libraries': library_version(), **made_with}
        self.folder, self.path = Path(folder), str(Path(folder, JSON))
        self.wanted, self.reference = list(wanted), reference
        also = made_with.get('also', {})
        self.conditions: list[Condition] = [CLEAN, *((name, 0) for name in also), *wanted]
        self.table: dict[str, Any] = dict(
            config=config,
            checkpoint=checkpoint,
            task=None,
            metrics=[],
            clean=None,
            also={},
            corrupted={},
            summary={},
            mCE=None,
            seconds=0.0,
            notes=[],
            made_with=dict(made_with),
        )
        refuse_existing(folder, resume)
        if Path(self.path).exists():
            self.table = read_table(self.path)
            known = self.table['made_with']
            refuse_other(self.path, known, made_with)
            known['also'] = known.get('also', {}) | also
            theirs = (self.table.get('mCE') or {}).get('reference')
            if theirs and reference is None:
                raise RefusedError(
                    f'{self.path} has mCE beside {theirs["config"]}, which would be lost: give its '
                    'table again by --reference'
                )
        self._unchecked = any(is_done(self.table, c) for c in self.conditions)

    def share(self) -> None:
        """Use the table of the first process on all processes."""
        self.table.update(of_first_process(self.table))

    def pending(self, predictions: Path | None = None) -> list[Condition]:
        """Conditions that the table does not have.

        Args:
            predictions: Folder where those of each condition have to be, if they have to.
        """
        return [
            c
            for c in self.conditions
            if not is_done(self.table, c)
            or (predictions is not None and not self._is_kept(predictions_file(predictions, c)))
        ]

    def _is_kept(self, path: Path) -> bool:
        """Whether a file holds predictions of this run; one of an earlier run may lie there."""
        if not path.is_file():
            return False
        theirs, ours = read_predictions(path).head['made_with'], self.table['made_with']
        return all(theirs.get(key) == ours.get(key) for key in ('config', 'checkpoint', 'mtime'))

    def count(self, images: int) -> None:
        """Check that the test set has the size of the earlier ones.

        Raises:
            RefusedError: With both numbers.
        """
        known = self.table['made_with'].setdefault('images', images)
        if known != images:
            raise RefusedError(
                f'the table was made with {known} images, now there are {images}. {ANEW}'
            )

    def add(
        self, condition: Condition, metrics: Mapping[str, Any], found: int, seconds: float
    ) -> None:
        """Add the metrics of a condition and write the table; ``found`` is the number of instances
        in the predictions of a detector.

        Raises:
            RefusedError: If the table has other metrics.
        """
        table, (name, severity) = self.table, condition
        # Another test set may have other metrics; a detector that finds nothing has none.
        like_clean = severity or (condition != CLEAN and not metrics)
        clean = table['clean'] if like_clean else None
        scores = read_scores(metrics, clean, table['task'], found)
        # Those of other test sets may be others.
        if self._unchecked and (severity or condition == CLEAN):
            check_metrics(scores, table, self.path)
            self._unchecked = False
        if condition == CLEAN:
            table['clean'] = scores
        elif severity:
            table['corrupted'].setdefault(name, {})[str(severity)] = scores
        else:
            table['also'][name] = scores
        table['seconds'] = round(table['seconds'] + seconds, 3)
        self.save()

    def save(self) -> None:
        """Compute the summary and write the table."""
        self.table.update(complete(self.table, self.wanted, self.reference))
        if is_main_process():
            write_table(self.table, self.folder)
