# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The model in a runner."""

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


def model_of(runner: Runner) -> Any:
    """The model itself, without DistributedDataParallel around it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
