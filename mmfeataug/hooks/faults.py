# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What of a training run does not go together with views, said before it begins."""

from collections.abc import Iterator

from mmengine.runner import Runner
from torch import nn

from mmfeataug.engine import AugmentedLoss, is_sharded
from mmfeataug.utils.tasks import refuse_branches

_SHARDING = ('FSDP', 'DeepSpeed', 'ColossalAI')


def run_faults(runner: Runner) -> Iterator[Exception]:
    """What does not go together with gradients taken inside the forward pass."""
    wrapper = type(runner.model).__name__
    strategy = type(getattr(runner, 'strategy', None)).__name__
    if is_sharded(runner.model) or any(n in wrapper or n in strategy for n in _SHARDING):
        yield ValueError(
            f'model_wrapper {wrapper}: sharded models allow no backward pass inside the forward '
            "pass; use MMDistributedDataParallel (launcher='pytorch')"
        )
    # FlexibleRunner keeps the setting to itself; an empty dict compiles, too.
    for option in (runner.cfg.get('compile'), getattr(runner, '_compile', None)):
        if option is True or (isinstance(option, dict) and not option.get('disable')):
            yield ValueError(
                'compile is set: torch.compile traces train_step, and replays patch modules while '
                'it runs; remove it'
            )
            break


def handle_faults(runner: Runner, model: nn.Module, handle: AugmentedLoss) -> Iterator[Exception]:
    """What does not go together with the augmentations of a handle: parameters that
    DistributedDataParallel waits for, and batches of several branches.
    """
    wrapped = getattr(runner.model, 'find_unused_parameters', True)
    if handle.owns_parameters and wrapped is False:
        yield ValueError(
            "bn='separate' or a method with parameters of its own with DistributedDataParallel: "
            'these parameters get no gradient in an iteration without views; set '
            'find_unused_parameters=True in the config'
        )
    for name, augmentation in handle.augmentations.items():
        if augmentation.starts_at[0] == 'inputs':
            try:
                refuse_branches(
                    model,
                    f'{name} changes',
                    'take a method that changes features, at a layer of the student, such as '
                    "dict(type='mmfeataug.AFAN', at='student.backbone.layer2')",
                )
            except TypeError as error:
                yield error
