# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Declare augmentations where the model is built. The parts stay stock; ``FeatureAugHook`` drives
what they declare.
"""

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from mmfeataug.registry import MODELS

_DECLARED = 'feature_augmentations'


def declare(module: nn.Module, augmentations: Sequence[dict]) -> nn.Module:
    """Note augmentations on a module, with ``at`` relative to it (``''`` is the module itself).

    Raises:
        TypeError: If an entry is not a config with a type and a place.
    """
    for entry in augmentations:
        if not isinstance(entry, dict) or 'type' not in entry or 'at' not in entry:
            raise TypeError(
                f"augmentations: {entry!r} is not a config like dict(type='mmfeataug.AFAN', "
                "at='layer2')"
            )
    setattr(module, _DECLARED, [dict(entry) for entry in augmentations])
    module.register_forward_pre_hook(_warn_if_idle)
    return module


def collect(model: nn.Module) -> list[dict]:
    """All augmentations declared in a model, with places relative to it. Marks them as driven."""
    found = []
    for path, module in model.named_modules():
        for entry in getattr(module, _DECLARED, ()):
            found.append({**entry, 'at': '.'.join(filter(None, (path, entry['at'])))})
        if hasattr(module, _DECLARED):
            _forget_warning(module)
    return found


class AugmentedBackbone:
    """Build a backbone and declare augmentations in it.

    Building one returns the stock backbone itself: class, keys, parameter names and ``train()`` are
        those without the
    plugin.

    Args:
        backbone: Config of the backbone.
        augmentations: Configs whose ``at`` counts from the backbone, as ``'layer2'``.
        pretrained: Set by mmseg's old model-level ``pretrained``; handed to the backbone.

    Examples:
        >>> model = dict(backbone=dict(
        ...     type='mmfeataug.AugmentedBackbone', backbone=_base_.model.backbone,
        ...     augmentations=[dict(type='mmfeataug.AFAN', at='layer2')]))
    """

    def __new__(  # type: ignore[misc]
        cls, backbone: dict, augmentations: Sequence[dict] = (), pretrained: str | None = None
    ) -> nn.Module:
        """See the class."""
        if pretrained is not None:
            backbone = {**backbone, 'pretrained': pretrained}
        return declare(MODELS.build(backbone), augmentations)


class AugmentedNeck:
    """Build a neck and declare augmentations in it; the same as :class:`AugmentedBackbone`.

    Args:
        neck: Config of the neck; None gives one that passes features on, as a place for taps.
        augmentations: Configs whose ``at`` counts from the neck; ``''`` is its output, all levels
            together.
    """

    def __new__(cls, neck: dict | None = None, augmentations: Sequence[dict] = ()) -> nn.Module:  # type: ignore[misc]
        """See the class."""
        return declare(nn.Identity() if neck is None else MODELS.build(neck), augmentations)


MODELS.register_module(module=AugmentedBackbone)
MODELS.register_module(module=AugmentedNeck)


def _warn_if_idle(module: nn.Module, args: Any) -> None:
    if module.training:
        _forget_warning(module)
        warnings.warn(
            f'{type(module).__name__} declares feature augmentations, but nothing drives them: add '
            "custom_hooks=[dict(type='mmfeataug.FeatureAugHook')] to the config",
            stacklevel=2,
        )


def _forget_warning(module: nn.Module) -> None:
    for key, hook in list(module._forward_pre_hooks.items()):
        if hook is _warn_if_idle:
            del module._forward_pre_hooks[key]
