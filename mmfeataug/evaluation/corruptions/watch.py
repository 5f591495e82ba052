# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What is seen of a test under conditions while it runs, and when it stops."""

import itertools
from typing import Any

from mmengine.hooks import Hook
from rich.progress import Progress

from ..scores import count_found
from ..unfinished import RefusedError, label
from .run_table import Condition


class Watch(Hook):
    """Moves the bar along and counts what the model finds."""

    priority = 'LOWEST'

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.done = progress, 0
        self.bar = progress.add_task('', total=total)

    def begin(self, condition: Condition) -> None:
        """A condition begins."""
        self.batches = self.found = 0
        self.progress.update(self.bar, description=label(condition))

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """A batch is done."""
        self.batches += 1
        self.found += count_found(outputs)
        part = self.batches / len(runner.test_dataloader)
        self.progress.update(self.bar, completed=self.done + part)

    def end(self) -> None:
        """A condition is done."""
        self.done += 1
        self.progress.update(self.bar, completed=self.done)


def explain(error: Exception, loop: Any, condition: Condition, batches: int) -> None:
    """Raise anew with the name of the file, if it is one of the next batch's that fails.

    Raises:
        RefusedError: With the remedy.
    """
    dataset = loop.dataloader.dataset
    batch = next(itertools.islice(loop.dataloader.batch_sampler, batches, None), ())
    for index in batch:
        try:
            dataset[index]
        except Exception as cause:
            info = dataset.get_data_info(index) if hasattr(dataset, 'get_data_info') else {}
            path = info.get('img_path') or f'image {index}'
            raise RefusedError(
                f'{label(condition)}: {path} cannot be used: {type(cause).__name__}: {cause}. '
                'Conditions that were done are kept: put the file right and go on with --resume; '
                'without it the data are others, and all conditions have to be repeated'
            ) from None
