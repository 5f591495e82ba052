# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Checks before training: settings of a run that views do not support, or not well."""

from collections.abc import Iterator
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm

from mmfeataug.engine import (
    AugmentedLoss,
    BatchAugmentation,
    is_sharded,
    norms_behind,
    stock_state_dict,
)
from mmfeataug.utils.configs import type_name
from mmfeataug.utils.settings import Fix, SettingError

from .findings import Finding

_SHARDING = ('FSDP', 'FullySharded', 'DeepSpeed', 'ColossalAI')
_BATCH_SIZE = 'train_dataloader.batch_size'


def run_faults(runner: Runner) -> Iterator[Exception]:
    """Errors: settings that exclude gradients inside the forward pass."""
    # One process wraps nothing, whatever the config says.
    wrapper = type_name(runner.cfg.get('model_wrapper_cfg') or {})
    if is_model_wrapper(runner.model) or not wrapper:
        wrapper = type(runner.model).__name__
    strategy = type(getattr(runner, 'strategy', None)).__name__
    if is_sharded(runner.model) or any(n in wrapper or n in strategy for n in _SHARDING):
        yield SettingError(
            f'model_wrapper {wrapper}: sharded models allow no backward pass inside the forward '
            "pass; use MMDistributedDataParallel (launcher='pytorch')",
            Fix('config', 'model_wrapper_cfg', dict(type='MMDistributedDataParallel')),
        )
    if type(runner.optim_wrapper).__name__ == 'ApexOptimWrapper':
        yield SettingError(
            'optim_wrapper ApexOptimWrapper: apex scales losses behind the forward pass, and views '
            'take gradients inside of it; use AmpOptimWrapper',
            Fix('config', 'optim_wrapper.type', 'AmpOptimWrapper'),
        )
    # FlexibleRunner keeps the setting to itself; an empty dict compiles, too.
    for option in (runner.cfg.get('compile'), getattr(runner, '_compile', None)):
        if option is True or (isinstance(option, dict) and not option.get('disable')):
            yield SettingError(
                'compile is set: torch.compile traces train_step, and replays patch modules while '
                'it runs; remove it',
                Fix('config', 'compile', False),
            )
            break


def handle_faults(runner: Runner, handle: AugmentedLoss) -> Iterator[Exception]:
    """What does not go together with the augmentations of a handle: parameters that
    DistributedDataParallel waits for, and batches that are too small.
    """
    if is_model_wrapper(runner.model):
        yield from _waiting(runner, handle)
    size = batch_size(runner)
    for name, augmentation in handle.augmentations.items():
        least = augmentation.least_samples if isinstance(augmentation, BatchAugmentation) else 1
        if size is not None and size < least:
            yield SettingError(
                f'{_BATCH_SIZE}={size}: {name} needs at least {least} images in a batch of each '
                'process and would never act; set it higher',
                Fix('config', _BATCH_SIZE, least),
            )


def handle_warnings(runner: Runner, model: nn.Module, handle: AugmentedLoss) -> Iterator[Finding]:
    """Warnings about augmentations that are unwise in this run."""
    if not is_model_wrapper(runner.model):
        for error in _waiting(runner, handle):
            yield Finding(f'with several processes, {error}', fix=error.fix)
    for name, augmentation in handle.augmentations.items():
        if not augmentation.active:
            zeros = [f'{key}={value!r}' for key, value in _zeros(augmentation)]
            yield Finding(
                f'{name} at {augmentation.at}: a strength or weight of 0 makes its effect vanish '
                f'({", ".join(zeros)}), so that it never acts; raise it, or remove the augmentation'
            )
    if batch_size(runner) != 1:
        return
    model.train()
    for name, augmentation in handle.augmentations.items():
        if augmentation.bn == 'eval' or not augmentation.active:
            continue
        behind = map(model.get_submodule, norms_behind(model, *augmentation.starts_at))
        count = sum(norm.training and not isinstance(norm, SyncBatchNorm) for norm in behind)
        if count:
            yield Finding(
                f'{_BATCH_SIZE}=1: {count} batch norms behind {augmentation.at} take their '
                f'statistics of one image each, also in the views of {name}; set it to 2 or more, '
                "or bn='eval', or use SyncBN with several processes",
                fix=Fix('config', _BATCH_SIZE, 2),
            )


def _zeros(augmentation: Any) -> Iterator[tuple[str, Any]]:
    """Settings without which a method does nothing, where they are 0."""
    for key in ('strengths', augmentation.strength_name, 'weight', 'prob'):
        value = getattr(augmentation, key, None)
        each = value if isinstance(value, (list, tuple)) else [value]
        if each and all(isinstance(v, (int, float)) and v == 0 for v in each):
            yield key, value


def refuse_other_parts(model: nn.Module, resumed: dict[str, Any]) -> None:
    """Check that model and resumed checkpoint have the same parts of augmentations.

    Args:
        model: About to be resumed.
        resumed: State dict of the checkpoint.

    Raises:
        ValueError: If only one of them has second batch norms or modules of augmentations.
    """
    there, here = (
        state.keys() - stock_state_dict(state).keys() for state in (resumed, model.state_dict())
    )
    if there == here:
        return
    extra = sorted(there - here) or sorted(here - there)
    have, lacks = ('checkpoint', 'config') if there - here else ('config', 'checkpoint')
    raise ValueError(
        f'resume: the {have} has {len(extra)} tensors of augmentations that the {lacks} lacks, '
        f"such as {extra[0]!r} (bn='separate' makes those of 'aux_bn', generators those of "
        "'feature_aug'): resume with the augmentations of that run, or begin a new run from "
        'its weights: load_from=... with resume=False'
    )


def batch_size(runner: Runner) -> int | None:
    """Of the training data, in each process; None where a sampler decides it."""
    loader = runner.train_dataloader
    return loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)


def _waiting(runner: Runner, handle: AugmentedLoss) -> Iterator[SettingError]:
    """DistributedDataParallel waits for gradients of parameters that get none in stock steps."""
    if not handle.owns_parameters:
        return
    what = (
        "bn='separate' or a method with parameters of its own with DistributedDataParallel: these "
        'parameters get no gradient in an iteration without views; '
    )
    for key, bad, good in (('find_unused_parameters', False, True), ('static_graph', True, False)):
        if _wrapper_setting(runner, key) is bad:
            in_wrapper = bool(runner.cfg.get('model_wrapper_cfg')) or key == 'static_graph'
            path = f'model_wrapper_cfg.{key}' if in_wrapper else key
            yield SettingError(f'{what}set {key}={good} in the config', Fix('config', path, good))


def _wrapper_setting(runner: Runner, key: str) -> Any:
    """Of the model's wrapper, or of the one that it will get; None where it has no such setting."""
    if is_model_wrapper(runner.model):
        return getattr(runner.model, key, None)
    given = runner.cfg.get('model_wrapper_cfg')
    return (runner.cfg if given is None else given).get(key, False)
