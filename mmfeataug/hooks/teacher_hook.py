# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A slowly following average of the model that teaches it."""

from mmengine.hooks import EMAHook
from mmengine.runner import Runner

from mmfeataug.registry import HOOKS


@HOOKS.register_module()
class TeacherHook(EMAHook):
    """mmengine's ``EMAHook`` with a momentum that falls over the whole training.

    Methods that need a teacher take the average of whichever ``EMAHook`` the run has; validation
    and saved checkpoints are the average's, as always with that hook.

    Args:
        **kwargs: Settings of ``EMAHook`` and of ``mmfeataug.CosineEMA``, but for ``ema_type``.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__('mmfeataug.CosineEMA', **kwargs)

    def before_run(self, runner: Runner) -> None:
        """Tell the average how long training is."""
        self.ema_cfg.setdefault('total', runner.max_iters)
        super().before_run(runner)
