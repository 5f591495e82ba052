# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Attacks of an evaluation: what is put in the place of clean images or features."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor

from mmfeataug.engine import Tail, View
from mmfeataug.functional import interpolate, mean_std, replace_statistics, statistic_dims
from mmfeataug.methods import AdvBN
from mmfeataug.utils.settings import whole

from .base import Attack
from .pgd import KINDS, PGD
from .strongest import Strongest, ensemble

GRADIENT = (*KINDS, 'ensemble')
"""Attacks that :class:`PGD` makes."""

ATTACKS = (*GRADIENT, 'statistics', 'swap')


class WorstStatistics(Attack):
    """AdvBN's attack on the channels' means and deviations, with ``eps`` its bound; see
    :class:`AdvBN`. Its factors are shared by the batch.

    Args:
        at, side: See :class:`FeatureAugmentation`.
        eps: Bound of the factors' distance from 1; the authors' is 1.1.
        steps: Number of steps.
        step_size: Of the factors; None: 0.2.
    """

    def __init__(
        self,
        *,
        at: str,
        side: str = 'output',
        eps: float,
        steps: int = 6,
        step_size: float | None = None,
    ) -> None:
        super().__init__(at=at, side=side)
        self.step_size = 0.2 if step_size is None else step_size
        self.steps = steps
        self._advbn = AdvBN(
            at=at, side=side, bn='eval', steps=steps, step_size=self.step_size, eps=eps
        )

    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """As of AdvBN; see :meth:`FeatureAugmentation.views`."""
        yield from self._advbn.views(features, gradients, tail)


class StatisticSwap(Attack):
    """Each image's channels with means and deviations of another image of the batch.

    No gradient is asked: a change of style as data has it.

    Args:
        at, side: See :class:`FeatureAugmentation`.
        eps: How far, from 0 (own statistics) to 1 (the other image's).

    Raises:
        ValueError: If ``eps`` is not in [0, 1]; for a batch of one image.
    """

    def __init__(self, *, at: str, side: str = 'output', eps: float) -> None:
        super().__init__(at=at, side=side)
        if not 0 <= eps <= 1:
            raise ValueError(f'eps={eps!r}: a swap goes from 0 (own) to 1 (other statistics)')
        self.eps = eps

    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """The restyled features; see :meth:`FeatureAugmentation.views`."""
        count = len(self.images.names)
        if count < 2 or any(len(f) != count for f in features):
            raise ValueError(
                f'swap at {self.at!r}: {count} image(s), features of '
                f'{[len(f) for f in features]} rows; it needs at least two images in every '
                'batch, the last one too (test_dataloader.batch_size=2), and a place with '
                'one row an image'
            )
        shift = 1 + self.images.key(self.images.names) % (count - 1)
        found = []
        for feature in features:
            own = mean_std(feature, statistic_dims(feature, 'spatial'))
            mean, std = (interpolate(s, s.roll(shift, 0), [self.eps])[0] for s in own)
            found.append(replace_statistics(feature, own, (mean, std)))
        yield View(found, 1.0)


def make_attack(
    attack: str,
    eps: float,
    *,
    at: str,
    side: str = 'output',
    steps: int | None = None,
    step_size: float | None = None,
    restarts: int = 1,
    **pgd: Any,
) -> Attack | Strongest:
    """One of :data:`ATTACKS`, of one strength.

    Args:
        attack: Its name.
        eps: Its strength, in its own unit.
        at, side: Its place.
        steps: None: 6 for ``'statistics'``, 10 for others; ``'swap'`` has none.
        step_size: None: as the attack has it.
        restarts: Number of random starts of each attack of :data:`GRADIENT`, of which the strongest
            counts.
        **pgd: Further settings of :class:`PGD`; other attacks have none.

    Raises:
        ValueError: If there is no such attack, or at ``'inputs'`` none of the sort; for settings
            that an attack has not.
    """
    if attack not in ATTACKS:
        raise ValueError(f'attack={attack!r}: choose one of {", ".join(ATTACKS)}')
    place = dict(at=at, side=side, eps=eps)
    given: dict[str, Any] = {'step_size': step_size, **({} if steps is None else {'steps': steps})}
    if attack in GRADIENT:
        return _gradient_attack(attack, restarts, **place, **given, **pgd)
    if at == 'inputs':
        raise ValueError(
            f"attack={attack!r} at 'inputs': it changes statistics of features; name a layer, such "
            "as at='backbone.layer1'"
        )
    if restarts != 1:
        raise ValueError(f'restarts={restarts!r}: {attack!r} has no random start; leave it out')
    if attack == 'swap':
        if (steps, step_size) != (None, None):
            raise ValueError(f'steps={steps!r}, step_size={step_size!r}: a swap has no steps')
        return StatisticSwap(**place)  # type: ignore[arg-type]
    return WorstStatistics(**place, **given)  # type: ignore[arg-type]


def _gradient_attack(attack: str, restarts: int, **settings: Any) -> Attack | Strongest:
    whole('restarts', restarts)
    if restarts > 1 and not settings.get('random_start', True):
        raise ValueError(f'restarts={restarts!r} of an attack without a random start: drop one')
    if attack == 'ensemble':
        for name in ('against', 'step_size'):
            if settings.pop(name, None):
                raise ValueError(
                    f'{name}: the attacks of an ensemble choose it; leave it out, or make these '
                    'attacks one by one'
                )
        steps, differ = PGD(**settings).steps, settings.get('random_start', True)
        return Strongest(ensemble(partial(PGD, **settings), restarts, differ), steps)
    starts = [PGD(kind=attack, start=i, **settings) for i in range(restarts)]
    first = starts[0]
    if restarts == 1:
        return first
    members = [(attack, start) for start in starts]
    return Strongest(lambda batch: members, first.steps, first.step_size, first.against)
