# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Declare augmentations where the model is built. The parts stay stock; ``FeatureAugHook`` drives
what they declare.
"""

import warnings
from collections.abc import Sequence
from typing import Any

from mmengine.model import ModuleDict
from torch import nn

from mmfeataug.engine import (
    OWN_MODULES,
    Augmentation,
    AuxiliaryNorms,
    FeatureTransform,
    build_each,
    find_module,
    norms_behind,
)
from mmfeataug.registry import AUGMENTATIONS, MODELS

_DECLARED = 'feature_augmentations'


def declare(module: nn.Module, augmentations: Sequence[dict]) -> nn.Module:
    """Declare augmentations on a module, with ``at`` relative to it (``''`` is the module itself).

    Those that change features in place become layers at once; batch norms behind those with
    ``bn='separate'`` get a second set.

    Raises:
        TypeError: If an entry is not a config with a type.
        ValueError: For invalid settings.
    """
    driven: list[dict] = []
    separate: list[str] = []
    for entry in augmentations:
        if not isinstance(entry, dict) or 'type' not in entry:
            raise TypeError(
                f"augmentations: {entry!r} is not a config like dict(type='mmfeataug.AFAN', "
                "at='layer2')"
            )
        try:
            each = build_each(module, entry, AUGMENTATIONS)
        except TypeError as error:
            raise TypeError(f'augmentations: {entry!r}: {error}') from error
        for single, built in each:
            at = single.get('at', built.at)
            if _becomes_layer(module, built, at):
                continue
            driven.append({**single, 'at': at})
            for name, part in built.modules().items():
                _add_part(module, name, part)
            if built.bn == 'separate':
                place, side = built.starts_at
                separate += norms_behind(module, '' if place == '.' else place, side)
    if separate:
        AuxiliaryNorms(module, dict.fromkeys(separate))
    setattr(module, _DECLARED, driven)
    if driven:
        module.register_forward_pre_hook(_warn_if_idle)
    return module


def _becomes_layer(module: nn.Module, built: Augmentation, at: str | Sequence[str]) -> bool:
    """Install what changes features in place; whether it is such."""
    if 'inputs' in ([at] if isinstance(at, str) else at) and not hasattr(module, 'loss'):
        raise ValueError(
            f"augmentations: {type(built).__name__} with at='inputs': that is the image, which "
            'belongs to the whole model: declare it by mmfeataug.AugmentedModel, or give it to '
            'FeatureAugHook'
        )
    if not isinstance(built, FeatureTransform) or built.as_view or at == 'inputs':
        return False
    if built.active:
        assert isinstance(at, str)
        built.install(find_module(module, at) if at else module, module)
    return True


def collect(model: nn.Module) -> list[dict]:
    """All augmentations declared in a model, with places relative to it. Marks them as driven.
    Those of a frozen copy, such as the teacher of a semi-supervised detector, are left out.
    """
    declaring = {p: m for p, m in model.named_modules() if hasattr(m, _DECLARED)}
    trained = [
        getattr(m, _DECLARED)
        for m in declaring.values()
        if any(parameter.requires_grad for parameter in m.parameters())
    ]
    found = []
    for path, module in declaring.items():
        declared = getattr(module, _DECLARED)
        is_copy = declared in trained and not any(p.requires_grad for p in module.parameters())
        for entry in () if is_copy else declared:
            at = entry['at']
            joined = [
                '.'.join(filter(None, (path, a))) for a in ([at] if isinstance(at, str) else at)
            ]
            found.append({**entry, 'at': joined[0] if isinstance(at, str) else joined})
        _forget_warning(module)
    return found


def layers(model: nn.Module) -> dict[FeatureTransform, str]:
    """Augmentations that are layers of a model, each with the path of its module."""
    paths = {module: path for path, module in model.named_modules()}
    hooks = (
        hook
        for module in paths
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    )
    found = (getattr(hook, '__self__', None) for hook in hooks)
    return {
        f: paths[f.module]
        for f in found
        if isinstance(f, FeatureTransform) and f.module is not None
    }


def declares(model: nn.Module) -> bool:
    """Whether any part of the model was built with augmentations, layers included."""
    return any(hasattr(module, _DECLARED) for module in model.modules())


@MODELS.register_module()
class AugmentedModel:
    """Build a detector, segmentor or classifier and declare augmentations in it.

    Building one returns the stock model itself. Use it for methods with parameters of their own
    anywhere in the model, such as second batch norms in backbone and heads
    (``bn='separate'``) or AdAutoMix's generator: they are made here, so that optimizer, DDP, EMA
    and resume see them. Their keys in a checkpoint begin with ``aux_bn.`` and ``feature_aug.``; all
    others are stock.

    Args:
        of: Type of the model.
        augmentations: Configs whose ``at`` counts from the model, as ``'backbone.layer2'``.
        **model: Everything else of the model's config.

    Examples:
        >>> model = dict(type='mmfeataug.AugmentedModel', of='FasterRCNN', augmentations=[
        ...     dict(type='mmfeataug.AdvBN', at='backbone.layer1', bn='separate')])
    """

    def __new__(cls, of: str, augmentations: Sequence[dict] = (), **model: Any) -> nn.Module:  # type: ignore[misc]
        """See the class."""
        return declare(MODELS.build(dict(type=of, **model)), augmentations)


@MODELS.register_module()
class AugmentedBackbone:
    """Build a backbone and declare augmentations in it.

    Building one returns the stock backbone itself: class, keys, parameter names and ``train()`` are
    those without the plugin.

    Args:
        backbone: Config of the backbone.
        augmentations: Configs whose ``at`` counts from the backbone, as ``'layer2'``.
        pretrained: Set by mmseg's old model-level ``pretrained``; handed to the backbone.

    Examples:
        >>> model = dict(backbone=dict(
        ...     _delete_=True, type='mmfeataug.AugmentedBackbone', backbone=_base_.model.backbone,
        ...     augmentations=[dict(type='mmfeataug.AFAN', at='layer2')]))
    """

    def __new__(  # type: ignore[misc]
        cls,
        backbone: dict,
        augmentations: Sequence[dict] = (),
        pretrained: str | None = None,
        **inherited: Any,
    ) -> nn.Module:
        """See the class.

        Raises:
            TypeError: If settings of the stock backbone were inherited beside it.
        """
        _refuse(cls, inherited)
        if pretrained is not None:
            backbone = {**backbone, 'pretrained': pretrained}
        return declare(MODELS.build(backbone), augmentations)


@MODELS.register_module()
class AugmentedNeck:
    """Build a neck and declare augmentations in it; the same as :class:`AugmentedBackbone`.

    Args:
        neck: Config of the neck; None makes a neck that returns its input, as a place for taps.
        augmentations: Configs whose ``at`` counts from the neck; ``''`` is its output, all levels
            together.
    """

    def __new__(  # type: ignore[misc]
        cls, neck: dict | None = None, augmentations: Sequence[dict] = (), **inherited: Any
    ) -> nn.Module:
        """See the class.

        Raises:
            TypeError: If settings of the stock neck were inherited beside it.
        """
        _refuse(cls, inherited)
        return declare(nn.Identity() if neck is None else MODELS.build(neck), augmentations)


def _refuse(wrapper: type, inherited: dict) -> None:
    part = wrapper.__name__.removeprefix('Augmented').lower()
    if inherited:
        raise TypeError(
            f'{wrapper.__name__} got {", ".join(inherited)}, from the config that this one '
            'inherits: add _delete_=True beside its type. If --cfg-options set it: settings of the '
            f'stock part are one level deeper, as model.{part}.{part}.{next(iter(inherited))}=...'
        )


def _add_part(module: nn.Module, name: str, part: nn.Module) -> None:
    if OWN_MODULES not in module._modules:
        module.add_module(OWN_MODULES, ModuleDict())
    home = module.get_submodule(OWN_MODULES)
    if name in home._modules:
        raise ValueError(f'augmentations: two of them have a {name!r}; one is allowed')
    home.add_module(name, part)


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
