# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What cannot be augmented, said all at once and before training."""

from collections.abc import Iterator, Sequence

from torch import nn

from mmfeataug.utils.settings import DECLARE, Fix, SettingError

from .augmentation import Augmentation
from .auxiliary import norm_pairs, norms_behind


def model_faults(model: nn.Module) -> Iterator[Exception]:
    """What does not go together with gradients taken inside the forward pass: gradient hooks,
    fairscale's checkpointing and sharding; and what is no model.
    """
    # A criterion of that name is a module, and no method.
    missing = [
        f'{name}()'
        for name in ('loss', 'parse_losses')
        if not callable(method := getattr(model, name, None)) or isinstance(method, nn.Module)
    ]
    if missing:
        yield TypeError(
            f'{type(model).__name__} has no {" and no ".join(missing)}: attach to a detector, '
            'segmentor or classifier of OpenMMLab (mmengine BaseModel), not to a part or a wrapper '
            'of it'
        )
    for name, parameter in model.named_parameters():
        if parameter._backward_hooks:
            yield ValueError(
                f'the parameter {name} has a gradient hook, which would change the gradient of '
                'each pass and then their sum once more: use '
                'register_post_accumulate_grad_hook'
            )
    checkpointed = [n or 'the model' for n, m in model.named_modules() if _by_fairscale(m)]
    if checkpointed:
        yield SettingError(
            f'num_cp in {checkpointed[0]}: the checkpointing of fairscale refuses gradients toward '
            'features; set num_cp=-1, and with_cp=True where the backbone has it',
            Fix('config', f'model.{checkpointed[0]}.num_cp', -1),
        )
    sharded = [n or 'the model' for n, m in model.named_modules() if is_sharded(m)]
    if sharded:
        yield ValueError(
            f'{sharded[0]} is sharded by FSDP, which allows no backward pass inside the forward '
            'pass; use MMDistributedDataParallel'
        )


def augmentation_faults(
    model: nn.Module, augmentations: dict[str, Augmentation]
) -> Iterator[Exception]:
    """Names that loggers or the framework misread, and second batch norms that are not there."""
    for name, augmentation in augmentations.items():
        kind = type(augmentation).__name__
        if 'loss' in name:
            yield ValueError(
                f"{kind} is logged as {name!r}: mmengine adds up all that is logged with 'loss' in "
                'its name; override its property name'
            )
        elif not all(c.isascii() and (c.isalnum() or c in '_-.') for c in name):
            yield ValueError(
                f'{kind} is logged as {name!r}, which some visualization backends refuse: use '
                'letters, digits and _ - . in its property name'
            )
        if augmentation.bn == 'separate':
            yield from _separate_faults(model, name, augmentation)


def _separate_faults(
    model: nn.Module, name: str, augmentation: Augmentation
) -> Iterator[SettingError]:
    """Nothing to separate, or nothing to separate with."""
    at, behind = augmentation.starts_at[0], norms_behind(model, *augmentation.starts_at)
    paired = {id(first) for first, _ in norm_pairs(model)}
    missing = [path for path in behind if id(model.get_submodule(path)) not in paired]
    kind = type(augmentation).__name__
    if not behind:
        yield SettingError(
            f"{name} at {at!r}: bn='separate', but the model has no batch norm behind this place; "
            "use bn='shared'",
            Fix('augmentation', 'bn', 'shared', augmentation.at, kind),
        )
    elif missing:
        yield SettingError(
            f"{name} at {at!r}: bn='separate', but {missing[0]} (and {len(missing) - 1} more) has "
            'no second batch norm. They must exist before the optimizer does: declare the '
            "augmentation in model=dict(type='mmfeataug.AugmentedModel', of=..., "
            'augmentations=[...])',
            Fix('augmentation', DECLARE, None, augmentation.at, kind),
        )


def gradients_now(model: nn.Module) -> dict[str, tuple[int, int]]:
    """What ``.grad`` of each parameter is, to find out whether it changes."""
    return {
        name: (id(p.grad), p.grad._version)
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def refuse_inner_backward(model: nn.Module, before: dict[str, tuple[int, int]]) -> None:
    """Check that gradients were only taken, and not written to parameters.

    Args:
        model: Has run an augmented loss.
        before: :func:`gradients_now` before that.

    Raises:
        ValueError: If ``.grad`` of a parameter has changed.
    """
    now = gradients_now(model)
    written = [name for name in now if now[name] != before.get(name)]
    if written:
        raise ValueError(
            f'{len(written)} parameters, such as {written[0]}, got a gradient while the loss was '
            'computed: a module of this model calls backward() inside of its own backward pass, as '
            'reversible blocks do, so that gradients of attacks and views would count again; turn '
            'that off (RevVisionTransformer: no_custom_backward=True)'
        )


class FaultsError(ValueError):
    """Several things cannot be.

    Attributes:
        faults: Each by itself.
    """

    def __init__(self, faults: Sequence[Exception]) -> None:
        super().__init__(faults)
        self.faults = list(faults)

    def __str__(self) -> str:
        numbered = '\n'.join(f'{i}. {fault}' for i, fault in enumerate(self.faults, 1))
        return f'{len(self.faults)} things cannot be:\n{numbered}'


def each_fault(fault: Exception) -> list[Exception]:
    """Those that were raised together, or the one."""
    return fault.faults if isinstance(fault, FaultsError) else [fault]


def raise_together(faults: Sequence[Exception]) -> None:
    """Raise what was found, if anything: one fault as it is, several in one message.

    Raises:
        FaultsError: With the messages of several.
    """
    every = [one for fault in faults for one in each_fault(fault)]
    if len(every) == 1:
        raise every[0]
    if every:
        raise FaultsError(every)


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP has wrapped a module, or (``fully_shard``) changed its class."""
    names = {cls.__name__ for cls in type(module).__mro__}
    return bool(names & {'FullyShardedDataParallel', 'MMFullyShardedDataParallel', 'FSDPModule'})


def _by_fairscale(module: nn.Module) -> bool:
    count = getattr(module, 'num_cp', -1)
    return isinstance(count, int) and count > 0
