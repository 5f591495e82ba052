# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""How the clean loss and the views share an objective whose weights sum to 1."""

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from mmfeataug.utils.settings import Fix, SettingError

from .augmentation import Augmentation, FeatureAugmentation


def share_weights(
    augmentations: Mapping[str, Augmentation], clean_weight: float | None
) -> tuple[float, dict[str, tuple[float, ...]]]:
    """Fill in the weights that are not said, so that all sum to 1.

    Said weights stay. Where ``clean_weight`` is None, it and the views without a weight get one
    half each of what the said ones leave, the views in equal parts; without such views the clean
    loss gets all of it. Where it is said, views without a weight share what it leaves. Only views
    take part: terms that a method adds to the objective, and layers, take nothing from it.

    Args:
        augmentations: By the names they are logged under.
        clean_weight: Factor of the clean loss, or None.

    Returns:
        Factor of the clean loss, and those of the views by name.

    Raises:
        ValueError: If nothing is left for what is not said; the message names the weights.
    """
    makers = {n: a for n, a in augmentations.items() if _makes_views(a) and a.active}
    said = {n: [w for w in a.weights if w is not None] for n, a in makers.items()}
    shared = [n for n, a in makers.items() for w in a.weights if w is None]
    taken = sum(map(sum, said.values()))
    listed = ', '.join(f'{n}: {" + ".join(f"{w:g}" for w in ws)}' for n, ws in said.items() if ws)
    rest = 1 - taken - (clean_weight or 0.0)
    if clean_weight is None and rest < 1e-6:
        heavy = max(makers.values(), key=lambda a: sum(w or 0 for w in a.weights))
        raise SettingError(
            f'the weights of the views sum to {taken:g} ({listed}), which leaves nothing of 1 for '
            'the clean loss: lower them, leave weight out (views without one share a half), or say '
            'how much the clean loss counts, such as clean_weight=1.0',
            Fix('augmentation', 'weight', None, heavy.at, type(heavy).__name__),
        )
    if shared and rest < 1e-6:
        raise SettingError(
            f'clean_weight={clean_weight:g}{f" and weights ({listed})" if listed else ""} leave '
            f'nothing of 1 for the views without a weight ({", ".join(dict.fromkeys(shared))}): '
            'say their weight=..., lower clean_weight, or leave it out',
            Fix('hook', 'clean_weight', None),
        )
    if clean_weight is None:
        clean_weight = rest / 2 if shared else rest
        rest -= clean_weight
    each = rest / len(shared) if shared else 0.0
    weights = {n: tuple(each if w is None else w for w in a.weights) for n, a in makers.items()}
    return clean_weight, weights


def _makes_views(augmentation: Augmentation) -> TypeGuard[FeatureAugmentation]:
    """Whether it trains on views, neither as a layer nor by terms of its own."""
    return isinstance(augmentation, FeatureAugmentation) and not augmentation.in_place


def formula(clean: float, weights: Mapping[str, Sequence[float]], terms: Sequence[str]) -> str:
    """The objective in one line, such as ``0.50 clean + 2 x 0.25 afan = 1.00``.

    Args:
        clean: Factor of the clean loss.
        weights: Of views, by name.
        terms: Names of methods that add terms of their own.
    """
    parts = [f'{_number(clean)} clean']
    for name, each in weights.items():
        for weight in dict.fromkeys(each):
            count = each.count(weight)
            parts.append(f'{f"{count} x " if count > 1 else ""}{_number(weight)} {name}')
    total = clean + sum(map(sum, weights.values()))
    beside = f', and the terms of {", ".join(terms)}' if terms else ''
    return f'objective = {" + ".join(parts)} = {_number(total)}{beside}'


def _number(weight: float) -> str:
    return f'{weight:.2f}' if weight >= 0.1 or not weight else f'{weight:.3g}'
