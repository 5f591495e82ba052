# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""``attach``: augmentations without a Runner."""

from collections.abc import Sequence
from numbers import Integral

from torch import nn

from .engine import Augmentation, AugmentedLoss, build_each, raise_together
from .registry import AUGMENTATIONS
from .utils.message_hub import message_hub
from .utils.tasks import refuse_branches


def attach(
    model: nn.Module,
    augmentations: Sequence[dict | Augmentation],
    clean_weight: float | None = None,
    strict: bool = False,
    seed: int = 0,
) -> AugmentedLoss:
    """Make ``model.loss`` train on views of features, until the returned handle is detached.

    Keep one handle for all steps: it counts iterations, from which draws are seeded.

    Args:
        model: A detector, segmentor or classifier of OpenMMLab, without its distributed wrapper.
        augmentations: Configs such as ``dict(type='AFAN', at='backbone.layer2')``, or built
            objects.
        clean_weight: Factor of the clean loss while views are active. None: what the weights of
            the views leave of 1; views without a weight and the clean loss share that, one half
            each.
        strict: Raise if a replay from a tap is not exact, instead of a warning and a slower, exact
            way.
        seed: Of the methods' random draws.

    Returns:
        A handle with ``detach()``, which is a context manager too.

    Raises:
        TapError: For a path that is not there.
        TypeError, ValueError: For invalid settings; the message names them.

    Examples:
        >>> views = dict(type='AFAN', at='backbone.layer2')
        >>> with mmfeataug.attach(model, [views]):
        ...     losses = model.loss(inputs, data_samples)
    """
    if isinstance(augmentations, (dict, str)) or not isinstance(augmentations, Sequence):
        raise TypeError(
            f'augmentations must be a list of configs or objects, got '
            f'{type(augmentations).__name__}: put brackets around it'
        )
    if not isinstance(seed, Integral):
        raise TypeError(f'seed={seed!r}: give a whole number')
    built: list[Augmentation] = []
    faults: list[Exception] = []
    for entry in augmentations:
        try:
            if isinstance(entry, dict):
                built += [made for _, made in build_each(model, entry, AUGMENTATIONS)]
            else:
                built.append(entry)
        except (KeyError, TypeError, ValueError) as error:
            faults.append(error)
    handle: AugmentedLoss | None = None
    try:
        # What the model and the other augmentations lack is said, too.
        handle = AugmentedLoss(
            model, built, clean_weight=clean_weight, strict=strict, seed=seed, outside=message_hub
        )
    except (TypeError, ValueError) as error:
        faults.append(error)
    for name, augmentation in handle.augmentations.items() if handle else ():
        if augmentation.starts_at[0] == 'inputs':
            try:
                refuse_branches(
                    model,
                    f'{name} changes',
                    'take a method that changes features, at a layer of the student, such as '
                    "dict(type='mmfeataug.AFAN', at='student.backbone.layer2')",
                )
            except TypeError as error:
                faults.append(error)
    if faults and handle:
        handle.detach()
    raise_together(faults)
    assert handle is not None
    return handle
