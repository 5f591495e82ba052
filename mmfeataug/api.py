# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What the hook uses, and what a script without a Runner uses."""

from collections.abc import Sequence

from torch import nn

from .engine import Augmentation, AugmentedLoss
from .registry import AUGMENTATIONS


def attach(
    model: nn.Module,
    augmentations: Sequence[dict | Augmentation],
    clean_weight: float = 1.0,
    engine: str = 'precomputed',
    strict: bool = False,
    seed: int = 0,
) -> AugmentedLoss:
    """Let ``model.loss`` train on views of features, until the returned handle is detached.

    Args:
        model: A detector, segmentor or classifier of OpenMMLab, without its distributed wrapper.
        augmentations: Configs such as ``dict(type='AFAN', at='backbone.layer2')``, or built
            objects.
        clean_weight: Factor of the clean loss while views are active.
        engine: ``'precomputed'`` (fast, small) or ``'graph'`` (plain: one autograd graph).
        strict: Raise if a replay from a tap is not exact, instead of a warning and a slower, exact
            way.
        seed: Of the methods' random draws.

    Returns:
        A handle with ``detach()``, which is a context manager too.

    Raises:
        TapError: For a path that is not there.
        TypeError, ValueError: For settings that cannot be; the message names them.

    Examples:
        >>> with mmfeataug.attach(model, [dict(type='AFAN', at='backbone.layer2', weight=0.5)],
        clean_weight=0.5):
        ...     losses = model.loss(inputs, data_samples)
    """
    if isinstance(augmentations, (dict, str)) or not isinstance(augmentations, Sequence):
        raise TypeError(
            'augmentations must be a list of configs or objects, got '
            f'{type(augmentations).__name__}'
        )
    # With our scope, so that the framework's default scope (mmdet, mmseg) has no say in the
    # look-up.
    built = [
        a if isinstance(a, Augmentation) else AUGMENTATIONS.build({'_scope_': 'mmfeataug', **a})
        for a in augmentations
    ]
    return AugmentedLoss(
        model, built, clean_weight=clean_weight, engine=engine, strict=strict, seed=seed
    )
