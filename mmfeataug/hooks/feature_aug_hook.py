# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Feature augmentation in a training run."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from torch import nn

from mmfeataug.api import attach
from mmfeataug.engine import AugmentedLoss, Choice, Plan, raise_together
from mmfeataug.models import collect, declares, layers
from mmfeataug.registry import HOOKS
from mmfeataug.utils.loaders import epoch_length
from mmfeataug.utils.models import model_of
from mmfeataug.utils.pipelines import steps
from mmfeataug.utils.pixels import learn_pipeline
from mmfeataug.utils.processes import of_first_process
from mmfeataug.utils.settings import MERGE, Fix, SettingError, flag

from .budget import Allowance, Budget
from .effects import EffectWatch
from .faults import batch_size, handle_faults, handle_warnings, refuse_other_parts, run_faults
from .findings import Finding, errors
from .loss_scale import keep_loss_scale, loss_scale
from .schedule import Schedule

_ALLOWANCE, _STATE = 'feature_aug.allowance', 'feature_aug.state'


@HOOKS.register_module()
class FeatureAugHook(Hook):
    """Trains a model on views of its features.

    The stock ``loss()`` is replaced during training only; checkpoints, validation and inference are
    stock. The log contains:

    - the clean losses under their stock names, times ``clean_weight``;
    - ``<method>.loss_<n>``: the loss of each view, times its weight;
    - ``<method>.linf``, ``.l2`` (mean over samples), ``.shift`` (of channel means): norms of the
      perturbation, the largest over views;
    - ``<method>.rise``: unweighted loss of a view minus the clean loss, the largest over views;
    - ``<method>.dropped``: number of dropped views; ``.skipped``: whether the batch was skipped;
      ``.lost_by_cast``: share of the perturbation that half precision rounds away;
    - ``feature_aug.active``: share of iterations with views so far; ``feature_aug.clean_weight``:
      mean factor of the clean loss over all iterations so far.

    In the first iterations with views of each epoch, the hook measures the effect of views. It
    warns once, with a value to try, if views are nearly the clean features or raise the loss
    tenfold.

    Args:
        augmentations: Configs with ``at`` counted from the model. None drives those that
            ``AugmentedModel``, ``AugmentedBackbone`` and ``AugmentedNeck`` declare; declared ones
            are always driven, too. A method that needs a teacher uses the average of the first
            ``EMAHook`` of the run.
        clean_weight: Factor of the clean losses in iterations with views; over ``warmup`` it falls
            from 1. None: the weights of each iteration sum to 1. Views without a weight get one
            half of what the set weights leave, the clean loss the other half; the weight of skipped
            or dropped views goes to the rest. A number applies to each iteration that may have
            views, with any sum.
        begin: First iteration (or epoch) in which augmentations act, counted from 0.
        end: First iteration (or epoch) in which they no longer act; None is the end of training.
        interval: Views in every ``interval``-th iteration from ``begin`` on.
        warmup: Iterations (or epochs) over which the weights of the views grow linearly from 0.
        strict: Raise if a replay is not exact; see :func:`mmfeataug.attach`.
        prob: Probability that such an iteration has views, drawn from seed and iteration, the same
            on all processes. ``interval`` and ``prob`` are of views alone: methods that change the
            clean pass itself act in all iterations from ``begin`` to ``end``.
        budget: Average cost of a step in stock steps, such as 1.15, instead of ``interval`` and
            ``prob``. The first iterations measure the cost of views; later iterations draw views so
            that the average is kept. If not all fit into a step, one is drawn, by weight. Methods
            that change the clean pass itself act always and count as part of the stock step. Views
            that come by chance (a ``prob`` of the method) make it cheaper. None: no limit.
        by_epoch: Whether ``begin``, ``end`` and ``warmup`` count epochs; ``interval`` counts
            iterations always.

    Examples:
        >>> custom_hooks = [dict(type='mmfeataug.FeatureAugHook', augmentations=[
        ...     dict(type='mmfeataug.AFAN', at='backbone.layer2')])]
    """

    priority = 'NORMAL'

    def __init__(
        self,
        augmentations: Sequence[dict] | None = None,
        clean_weight: float | None = None,
        begin: int = 0,
        end: int | None = None,
        interval: int = 1,
        warmup: int = 0,
        by_epoch: bool = False,
        strict: bool = False,
        prob: float = 1.0,
        budget: float | None = None,
    ) -> None:
        self.schedule = Schedule(begin, end, interval, warmup, by_epoch, prob)
        if budget is not None:
            Budget(budget, [], 0)
            if interval != 1 or prob != 1:
                raise ValueError(
                    f'budget={budget!r} decides itself which iterations have views: '
                    'leave interval and prob out'
                )
        self.budget = budget
        self._budget: Budget | None = None
        if isinstance(augmentations, (dict, str)):
            raise TypeError(f'augmentations={augmentations!r}: give a list, put brackets around it')
        self.augmentations = list(augmentations or ())
        self.clean_weight, self.strict = clean_weight, flag('strict', strict)
        self._handle: AugmentedLoss | None = None
        self._watch = EffectWatch({})
        self._plan = Plan()
        self._announced = self._measuring = self._was_called = self._said_not_called = False
        self._made_for: list = []
        self._driven: list[dict] = []
        self._seed = 0
        self._loss_scale: dict[str, Any] | None = None
        self._all_augmented = True

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check a resumed checkpoint before the optimizer finds other parameters than its own.

        Raises:
            ValueError: If only one of model and checkpoint has second batch norms or modules of
                augmentations.
        """
        if runner._resume:
            refuse_other_parts(model_of(runner), checkpoint['state_dict'])

    def before_train(self, runner: Runner) -> None:
        """Attach to the model. After EMA and resume, so that no copy of the model carries the
        handle.

        Raises:
            KeyError, TypeError, ValueError: For everything that cannot work, in one message.
        """
        self._handle, findings = self.prepare(runner)
        for finding in findings:
            if finding.error is None:
                runner.logger.warning('FeatureAugHook: %s', finding.message)
        raise_together([finding.error for finding in findings if finding.error is not None])
        assert self._handle is not None
        self._watch = EffectWatch(self._handle.augmentations)
        # The message hub is part of checkpoints.
        resumed = runner.message_hub.runtime_info
        self._handle.load_state_dict(resumed.get(_STATE, {}))
        if self.budget is not None:
            # A resumed run with other settings measures anew.
            self._made_for = [self.budget, batch_size(runner), *map(repr, self._driven)]
            self._budget = Budget(self.budget, self._handle.names, self._seed)
            known = resumed.get(_ALLOWANCE, {})
            if known.get('made_for') == self._made_for:
                self._budget.allowance = Allowance(**known['allowance'])

    def prepare(self, runner: Runner) -> tuple[AugmentedLoss | None, list[Finding]]:
        """Attach to the model, and find what cannot work or is unwise; training does so first, and
        ``tools/analysis_tools/check.py`` without training.

        Args:
            runner: About to train.

        Returns:
            The handle, None if anything cannot work, and what was found.
        """
        model = model_of(runner)
        left_over = vars(model).get('loss')
        if isinstance(left_over, AugmentedLoss):
            # An earlier training run of this process was interrupted.
            left_over.detach()
        learn_pipeline(model, steps(runner.train_dataloader.dataset))
        self._driven = [*self.augmentations, *collect(model)]
        # Processes may have seeds of their own (``diff_rank_seed``); these draws are alike on all.
        self._seed = of_first_process(runner.seed or 0)
        faults = [*run_faults(runner), *self._faults(runner, model)]
        handle, warnings = None, list[Finding]()
        try:
            handle = attach(
                model,
                self._driven,
                clean_weight=self.clean_weight,
                strict=self.strict,
                seed=self._seed,
            )
            faults += handle_faults(runner, handle)
            warnings += handle_warnings(runner, model, handle)
            if handle.names and self.budget is None:
                epoch = epoch_length(runner.train_dataloader)
                warnings += map(Finding, self.schedule.warnings(runner.max_iters, epoch))
            faults += self._handle_faults(handle)
            _follow_average(runner, model, handle)
        except (KeyError, TypeError, ValueError) as error:
            faults.append(error)
        if faults and handle is not None:
            handle.detach()
            handle = None
        return handle, [found for fault in faults for found in errors(fault)] + warnings

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Plan this iteration as the schedule says."""
        handle = self._handle
        assert handle is not None
        epoch = epoch_length(runner.train_dataloader)
        enabled = self.schedule.holds(runner.iter, epoch)
        views = self.schedule.draws(runner.iter, epoch, self._seed)
        only = None
        if self._budget and enabled:
            decision = self._budget.begin(runner.iter)
            views = bool(decision)
            only = decision if isinstance(decision, Choice) else None
            self._measuring = True
        # A loop by iterations has one epoch; the watch counts passes of the loader.
        measure = self._watch.wants(runner.iter // epoch)
        update = runner.iter // getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        self._all_augmented |= update != self._plan.update
        augmented = enabled and views and handle.names
        self._loss_scale = loss_scale(runner.optim_wrapper) if augmented else None
        ramp = self.schedule.ramp(runner.iter, epoch)
        handle.plan = self._plan = Plan(runner.iter, enabled, views, ramp, only, measure, update)

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Log the share of iterations with views; once, log the places.

        Raises:
            RuntimeError: If training did not call the loss that replaces the model's.
        """
        handle = self._handle
        assert handle is not None
        if handle.plan is self._plan and self._plan.enabled and self._plan.views:
            self._say_not_called(runner)
        self._was_called |= handle.plan is not self._plan
        self._all_augmented &= bool(handle.outcome.acted)
        if self._all_augmented:
            keep_loss_scale(runner.optim_wrapper, self._loss_scale)
        count = runner.iter + 1
        for key, value in (
            ('active', handle.step_count / count),
            ('clean_weight', 1 + (handle.clean_weights - handle.step_count) / count),
        ):
            runner.message_hub.update_scalar(f'train/feature_aug.{key}', value)
        outcome = handle.outcome
        for message in (*self._watch.idle(outcome.acted), *self._watch.add(outcome.effects)):
            runner.logger.warning('FeatureAugHook: %s', message)
        runner.message_hub.update_info(_STATE, handle.state_dict())
        if self._budget and self._measuring:
            self._measuring = False
            allowance = self._budget.end(handle.outcome.weights, runner.iter)
            if allowance is not None:
                known = dict(allowance=asdict(allowance), made_for=self._made_for)
                runner.message_hub.update_info(_ALLOWANCE, known)
                runner.logger.info('FeatureAugHook: budget %s: %s', self.budget, allowance)
                epoch = epoch_length(runner.train_dataloader)
                behind = self.schedule.behind(runner.max_iters, epoch)
                for message in self._budget.warnings(behind):
                    runner.logger.warning('FeatureAugHook: budget=%s: %s', self.budget, message)
        # A step may be without views where layers act, which are known without one.
        if handle.was_active and (outcome.acted or not handle.names) and not self._announced:
            self._announced = True
            runner.logger.info('FeatureAugHook: %s', '; '.join(handle.describe()))
            runner.logger.info('FeatureAugHook: %s', handle.objective)

    def after_train(self, runner: Runner) -> None:
        """Give the model its stock loss back."""
        if self._handle is not None:
            self._handle.detach()
            self._handle = None

    def _say_not_called(self, runner: Runner) -> None:
        assert self._handle is not None
        model = type(self._handle.model).__name__
        message = (
            f'iteration {runner.iter} was to have views, but {model}.train_step did not call '
            f"{model}.loss, so that it was a stock step: let forward(mode='loss') or train_step "
            'call self.loss(inputs, data_samples)'
        )
        if not self._was_called:
            self.after_train(runner)
            raise RuntimeError(message)
        if not self._said_not_called:
            self._said_not_called = True
            runner.logger.warning('FeatureAugHook: %s; said once', message)

    def _faults(self, runner: Runner, model: nn.Module) -> Iterator[Exception]:
        """What cannot be of this hook in this run."""
        if sum(isinstance(hook, FeatureAugHook) for hook in runner.hooks) > 1:
            yield SettingError(
                'FeatureAugHook is there more than once in custom_hooks: give all augmentations to '
                'one of them; its schedule holds for all',
                Fix('hook', MERGE, None),
            )
        epoch, schedule = epoch_length(runner.train_dataloader), self.schedule
        if schedule.first(epoch) >= runner.max_iters:
            yield SettingError(
                f'begin={schedule.begin!r} with by_epoch={schedule.by_epoch}: training ends at '
                f'{runner.max_iters} iterations ({epoch} an epoch), before any view',
                Fix('hook', 'begin', 0),
            )
        if self._driven:
            return
        if layers(model) and (self.budget or schedule != Schedule()):
            yield ValueError(
                'begin, end, interval, warmup, prob and budget say when augmentations act, and the '
                "model's are layers, which always do: give them to FeatureAugHook's augmentations "
                'instead, with at counted from the model'
            )
        if not declares(model):
            yield ValueError(
                'FeatureAugHook has nothing to drive: give augmentations=[...], or declare some '
                'with mmfeataug.AugmentedModel, mmfeataug.AugmentedBackbone or '
                'mmfeataug.AugmentedNeck'
            )

    def _handle_faults(self, handle: AugmentedLoss) -> Iterator[Exception]:
        """Settings that need views."""
        if handle.names:
            return
        schedule = self.schedule
        of_views = dict(
            interval=(schedule.interval, 1),
            prob=(schedule.prob, 1.0),
            budget=(self.budget, None),
            warmup=(schedule.warmup, 0),
            clean_weight=(None if self.clean_weight == 1 else self.clean_weight, None),
        )
        for name, (given, default) in of_views.items():
            if given != default:
                yield SettingError(
                    f'{name}={given!r} is of views, and no augmentation here makes any: methods '
                    'that change the clean pass act in all iterations from begin to end, with '
                    'weight 1; leave it out, and give the methods a prob of their own',
                    Fix('hook', name, default),
                )


def _follow_average(runner: Runner, model: nn.Module, handle: AugmentedLoss) -> None:
    """Give methods that need a teacher the average of the run's first ``EMAHook``."""
    if not handle.needs_teacher:
        return
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            average = hook.ema_model
            if int(average.steps) == 0:
                # It was copied before the model was initialised.
                average.module.load_state_dict(model.state_dict())
            handle.follow(average.module)
            return
    raise ValueError(
        'an augmentation needs an average of the model as its teacher: add '
        "dict(type='mmengine.EMAHook', ema_type='mmfeataug.CosineEMA') to custom_hooks"
    )
