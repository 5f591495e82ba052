# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The bar that long work shows on standard error."""

from typing import Any

from mmengine.dist import is_main_process
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar(width: int | str = '', **options: Any) -> Progress:
    """What is done, how much of it, and for how long yet; on the main process alone.

    Args:
        width: Characters for what is done; empty: as many as it has.
        **options: Of :class:`rich.progress.Progress`.
    """
    return Progress(
        TextColumn(f'{{task.description:{width}}}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        disable=not is_main_process(),
        **options,
    )
