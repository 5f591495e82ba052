# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Which models cannot be augmented, said before training."""

from torch import nn


def check_model(model: nn.Module, engine: str) -> None:
    """Refuse what does not go together with gradients taken inside the forward pass.

    Args:
        model: To be augmented.
        engine: ``'precomputed'`` or ``'graph'``.

    Raises:
        TypeError: If it is no model of OpenMMLab.
        ValueError: For gradient hooks, activation checkpointing and sharding.
    """
    for method in ('loss', 'parse_losses'):
        if not callable(getattr(model, method, None)):
            raise TypeError(
                f'{type(model).__name__} has no {method}(): attach to a detector, segmentor or '
                'classifier of '
                'OpenMMLab (mmengine BaseModel), not to a part or a wrapper of it'
            )
    for name, parameter in model.named_parameters():
        if engine == 'precomputed' and parameter._backward_hooks:
            raise ValueError(
                f'the parameter {name} has a gradient hook, which would change the gradient of '
                "each pass and then their sum once more: use engine='graph', or "
                'register_post_accumulate_grad_hook'
            )
    for name, module in model.named_modules():
        if getattr(module, 'with_cp', False):
            raise ValueError(
                f'with_cp=True in {name or "the model"}: reentrant checkpointing refuses '
                'gradients toward features; '
                'set with_cp=False'
            )
        if 'FullyShardedDataParallel' in type(module).__name__:
            raise ValueError(
                f'{name or "the model"} is sharded by FSDP, which allows no backward pass inside '
                'the forward pass; '
                'use MMDistributedDataParallel'
            )
