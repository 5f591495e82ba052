# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Check of a run that stops before training."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmfeataug.engine import AugmentedLoss
from mmfeataug.models import collect, declares
from mmfeataug.utils.loaders import epoch_length
from mmfeataug.utils.models import model_of
from mmfeataug.utils.settings import Fix

from .feature_aug_hook import FeatureAugHook
from .findings import Finding
from .trial import Trial, try_batch


class CheckHook(Hook):
    """Runs the checks of FeatureAugHook and tries one batch, then stops before training.

    Args:
        make_batch: Function of runner and model that returns preprocessed inputs and data samples.
        is_noise: Whether the batch is noise instead of training data.
        faults: Faults of effects to report, see :func:`mmfeataug.hooks.trial.try_batch`.

    Attributes:
        findings: Errors and warnings.
        hook: The FeatureAugHook of the run; None without one.
        trial: Result of the batch; None if there were errors before.
        iterations, epoch: Length of the training and of an epoch, in iterations.
    """

    priority = 'ABOVE_NORMAL'

    class EndError(Exception):
        """The run has been looked at."""

    def __init__(
        self,
        make_batch: Callable[[Runner, Any], Sequence[Any]],
        is_noise: bool,
        faults: Sequence[str],
    ) -> None:
        self.make_batch, self.is_noise, self.faults = make_batch, is_noise, faults
        self.findings: list[Finding] = []
        self.hook: FeatureAugHook | None = None
        self.trial: Trial | None = None
        self.iterations = self.epoch = 1

    def before_train(self, runner: Runner) -> None:
        """Run the checks.

        Raises:
            CheckHook.EndError: After the checks.
        """
        model = model_of(runner)
        self.iterations, self.epoch = runner.max_iters, epoch_length(runner.train_dataloader)
        hooks = [hook for hook in runner.hooks if isinstance(hook, FeatureAugHook)]
        self.hook = hooks[0] if hooks else None
        handles = []
        for hook in hooks:
            handle, found = hook.prepare(runner)
            known = {finding.message for finding in self.findings}
            self.findings += [finding for finding in found if finding.message not in known]
            handles += [handle] if handle else []
        if not hooks:
            self.findings += _without_hook(model)
        for handle in handles:
            with handle:
                self._try(runner, model, handle)
        raise CheckHook.EndError

    def _try(self, runner: Runner, model: Any, handle: AugmentedLoss) -> None:
        try:
            batch = self.make_batch(runner, model)
        except Exception as error:
            if not self.is_noise:
                raise
            self.findings.append(Finding(f'no batch was tried, noise is none here: {error}'))
            return
        wrapper = runner.optim_wrapper
        # With several optimizers, models open the context themselves.
        alone = isinstance(wrapper, OptimWrapper)
        context = partial(wrapper.optim_context, runner.model) if alone else nullcontext
        self.trial = trial = try_batch(handle, batch, self.faults, context)
        self.findings += trial.findings
        if trial.failure is None:
            return
        message = f'a stock step fails: {type(trial.failure).__name__}: {trial.failure}'
        if 'more than 1 value per channel' in str(trial.failure):
            message += ': a batch norm sees one value; set train_dataloader.batch_size to 2 or more'
            fix = Fix('config', 'train_dataloader.batch_size', 2)
            self.findings.append(Finding(message, trial.failure, fix))
        elif self.is_noise:
            self.findings.append(
                Finding(f'{message}: noise may be no batch for this model; try it with its data')
            )
        else:
            self.findings.append(Finding(message, trial.failure))


def _without_hook(model: Any) -> list[Finding]:
    if collect(model):
        message = (
            'the model declares augmentations, and no hook drives them: add dict(type='
            "'mmfeataug.FeatureAugHook') to custom_hooks"
        )
        return [Finding(message, ValueError(message))]
    if declares(model):
        return []
    return [
        Finding(
            'nothing in this config augments features: add '
            "dict(type='mmfeataug.FeatureAugHook', augmentations=[dict(type='mmfeataug.AFAN', "
            "at='backbone.layer2')]) to custom_hooks"
        )
    ]
