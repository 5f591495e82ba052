# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What PyTorch 2.1 has under other names than later versions; asked for by capability."""

from collections.abc import Callable

import torch
from torch import nn


def autocast_dtype(device: str) -> torch.dtype | None:
    """The type that autocast computes in on a kind of device; None where it is off.

    Args:
        device: ``'cuda'`` or ``'cpu'``.
    """
    if hasattr(torch, 'get_autocast_dtype'):  # Since 2.4.
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    if device == 'cpu':
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


def before_load_state_dict(module: nn.Module, hook: Callable[..., None]) -> None:
    """Have ``hook(module, state_dict, prefix, ...)`` called before the module loads; public since
    2.5.
    """
    if hasattr(module, 'register_load_state_dict_pre_hook'):
        module.register_load_state_dict_pre_hook(hook)
    else:
        module._register_load_state_dict_pre_hook(hook, with_module=True)
