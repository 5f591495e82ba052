# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Test loop under corruptions: clean images, corrupted images and other test sets."""

import copy
import itertools
import os.path as osp
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce
from mmengine.runner import BaseLoop

from mmfeataug.datasets import Corrupt, behind_loading, corrupt_image, corrupt_images
from mmfeataug.registry import LOOPS
from mmfeataug.utils.configs import scope_of, set_workers, type_name
from mmfeataug.utils.models import model_of
from mmfeataug.utils.processes import of_first_process
from mmfeataug.utils.progress import progress_bar
from mmfeataug.utils.settings import flag
from mmfeataug.utils.tasks import task_of

from ..checkpoints import CheckpointCheck
from ..predictions import PREDICTIONS, saving
from ..report import to_markdown
from ..robustness import SEVERITIES, select_corruptions
from ..scores import count_tested_only
from ..unfinished import CLEAN, fingerprint, label, read_reference
from .other_sets import read_other_sets
from .run_table import Condition, RunTable, predictions_file
from .watch import Watch, explain


@LOOPS.register_module()
class CorruptionTestLoop(BaseLoop):
    """Run the test of a config on clean images and under each corruption and severity.

    ``robustness.json``, ``.csv`` and ``.md`` are written after each of these conditions. A killed
    run can be resumed and gives the same table.

    Args:
        runner, dataloader, evaluator: Set by the Runner, from a config.
        corruptions: Names of corruptions, and of groups of them.
        severities: 1 (light) to 5 (strong).
        cache: Folder where corrupted images are kept: the first test fills it, later ones read
            it. The scores are the same.
        also: Other test sets by name: configs, whose test data loader and evaluator are run with
            this model.
        save_predictions: Whether to write those of each condition to ``<out_dir>/predictions``.
        reference: ``robustness.json`` of the reference classifier of mCE.
        out_dir: Folder of the results; None: the work directory.
        resume: Whether to continue an existing table.
        loop: Config of the test loop that runs each condition; None: mmengine's ``TestLoop``.

    Raises:
        TypeError: If the data loader or evaluator is no config, or a flag neither True nor False.
        ValueError: For invalid settings, and if ``out_dir`` has a table of another run, or a table
            without ``resume``.
        ImportError: If the library of a corruption is missing.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluator: Any,
        *,
        corruptions: Sequence[str] = ('benchmark',),
        severities: Sequence[int] = SEVERITIES,
        cache: str | None = None,
        also: Mapping[str, str] | None = None,
        save_predictions: bool = False,
        reference: str | None = None,
        out_dir: str | None = None,
        resume: bool = False,
        loop: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(dataloader, Mapping) or not isinstance(evaluator, Mapping | Sequence):
            raise TypeError(
                'CorruptionTestLoop builds data loader and evaluator anew for each condition: give '
                'test_dataloader and test_evaluator as configs'
            )
        if type_name(loop or {}) in ('AdversarialTestLoop', 'CorruptionTestLoop'):
            raise ValueError(
                f'loop={loop!r}: each condition is one plain test; set test_cfg=dict()'
            )
        # Data are read when a condition needs them.
        super().__init__(runner, [])
        self.test_sets = {CLEAN[0]: (dataloader, evaluator)}
        wanted = conditions_of(corruptions, severities)
        # A missing library, or a pipeline without a place for corruptions, is refused before the
        # clean test.
        for condition in wanted:
            Corrupt(*condition)
        if wanted:
            list(behind_loading(dataloader, scope_of(runner.cfg)))
        others = read_other_sets(also or {})
        self.test_sets |= {
            name: (other.cfg.test_dataloader, other.cfg.test_evaluator)
            for name, other in others.items()
        }
        self.cache, self.loop = cache, {} if loop is None else loop
        out_dir = out_dir or runner.work_dir
        flag('resume', resume)
        save_predictions = flag('save_predictions', save_predictions)
        self.predictions = Path(out_dir, PREDICTIONS) if save_predictions else None
        cfg = runner.cfg
        checkpoint = str(getattr(runner, '_load_from', None) or cfg.get('load_from') or '')
        # What is asked for may change: conditions that are there stay true.
        own = copy.deepcopy(cfg)
        own.test_cfg = self.loop
        made_with = fingerprint(own, checkpoint)
        made_with['also'] = {name: s.digest for name, s in others.items()}
        table = read_reference(reference, wanted) if reference else None
        name = osp.splitext(osp.basename(cfg.filename or ''))[0]
        self.record = RunTable(out_dir, name, checkpoint, made_with, wanted, table, resume)
        self.record.share()
        self._fit = CheckpointCheck()
        runner.register_hook(self._fit)
        self.record.table['task'] = task_of(model_of(runner))

    def run(self) -> dict:
        """P, mPC and rPC of each metric."""
        runner, record = self.runner, self.record
        if self._fit.lacks:
            record.table['lacks'] = self._fit.lacks
        pending = of_first_process(record.pending(self.predictions))
        options = dict(redirect_stdout=False, redirect_stderr=False, speed_estimate_period=1e9)
        with progress_bar(22, **options) as progress:
            watch = Watch(progress, len(pending))
            runner.register_hook(watch)
            before = runner._test_loop
            try:
                for condition in pending:
                    start = time.monotonic()
                    metrics = self.evaluate(condition, watch)
                    found = torch.tensor(watch.found)
                    all_reduce(found)
                    record.add(condition, metrics, int(found), time.monotonic() - start)
            finally:
                runner._test_loop = before
                runner._hooks.remove(watch)
        record.save()
        table = record.table
        if table['metrics']:
            runner.logger.info('%s\n%s', record.folder, to_markdown(table))
        return {
            f'{metric}/{key}': summary[key]
            for metric, summary in table['summary'].items()
            for key in ('P', 'mPC', 'rPC')
        }

    def evaluate(self, condition: Condition, watch: Watch) -> dict:
        """Metrics of the evaluator under a condition."""
        runner, (name, severity) = self.runner, condition
        loader, evaluator = copy.deepcopy(self.test_sets[CLEAN[0] if severity else name])
        # No worker outlives its condition.
        own = self.test_sets[CLEAN[0]][0].get('num_workers', 0)
        set_workers(loader, own)
        if severity:
            corrupt_images(loader, scope_of(runner.cfg), name, severity, self.cache)
            # Workers inherit what the library compiles at its first call.
            corrupt_image(np.zeros((32, 32, 3), np.uint8), name, severity, seed=0)
        runner._test_dataloader, runner._test_evaluator = loader, evaluator
        watch.begin(condition)
        # Hooks ask the runner for it.
        runner._test_loop = loop = runner.build_test_loop(copy.deepcopy(self.loop))
        dataset = loop.dataloader.dataset
        count_tested_only(loop.evaluator, (dataset.get_data_info(i) for i in range(len(dataset))))
        if severity or condition == CLEAN:
            self.record.count(len(dataset))
        try:
            with self._saved(loop.evaluator, condition):
                metrics = loop.run()
        except Exception as error:
            explain(error, loop, condition, watch.batches)
            raise RuntimeError(f'{label(condition)}: {type(error).__name__}: {error}') from error
        watch.end()
        return metrics

    def _saved(self, evaluator: Any, condition: Condition) -> Any:
        """The context in which predictions are written, if they are wanted."""
        if self.predictions is None:
            return nullcontext()
        table = self.record.table
        head = {
            key: table[key]
            for key in ('config', 'checkpoint', 'task', 'made_with', 'lacks')
            if key in table
        }
        path = predictions_file(self.predictions, condition)
        return saving(evaluator, path, condition=condition, **head)


def conditions_of(corruptions: Sequence[str], severities: Sequence[int]) -> list[Condition]:
    """Each corruption at each severity, in order.

    Raises:
        TypeError, ValueError: If one is unknown, or no list is given.
    """
    for name, given in (('corruptions', corruptions), ('severities', severities)):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise TypeError(f'{name}={given!r}: give a list, put brackets around it')
    wrong = [s for s in severities if type(s) is not int or s not in SEVERITIES]
    if wrong or (corruptions and not severities):
        raise ValueError(
            f'severities={wrong or severities!r}: give some of {", ".join(map(str, SEVERITIES))}'
        )
    return list(itertools.product(select_corruptions(corruptions), sorted(set(severities))))
