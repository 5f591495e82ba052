# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""L-ALFA: adversarial features at many layers, with learnt strengths."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mmfeataug.engine import OWN_MODULES, BatchAugmentation, CopyPass, Tail, View
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.settings import non_negative

from .afan import AFAN


class _Strength(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(1))


def _raw_strengths(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of all places, by the names of their modules."""
    found = {n.rsplit('.', 1)[-1]: m for n, m in model.named_modules() if f'{OWN_MODULES}.' in n}
    return {n: m.raw for n, m in found.items() if isinstance(m, _Strength)}


def _strengths(raw: list[nn.Parameter]) -> Tensor:
    """``(L,)``; they sum to 1."""
    every = torch.cat(list(raw))
    return 1 / len(raw) + every - every.mean()


@AUGMENTATIONS.register_module()
class LALFA(AFAN):
    r"""A-FAN's attack at several layers, with learnt strengths that sum to 1.

    Declare one for each layer :math:`l`, in ``mmfeataug.AugmentedModel``: the strengths are
    parameters of the model (``feature_aug.strength_<place>.raw``). The view is

    .. math:: f_l + w_l (f_l^{adv} - f_l), \quad w_l = 1/L + r_l - mean_k(r_k)

    with parameters :math:`r` that begin at 0, so that gradient descent on them is gradient
    descent on :math:`w` with a constant sum. Strengths can become negative; the release
    counteracts this by :class:`StrengthNorm`. Source: the classification part of
    https://arxiv.org/abs/2103.12171's release (ICLR 2021 submission j6rILItz4yr).

    Args:
        at: Place of this layer.
        steps: Of the attack; the release has 3.
        weight: Factor of the view's loss; None is a share: all layers together get one half, as in
            the release.
        **kwargs: See :class:`AFAN`, but for ``strengths``.
    """

    def __init__(self, *, at: str, steps: int = 3, weight: float | None = None, **kwargs) -> None:
        if 'strengths' in kwargs:
            raise TypeError(f'strengths at {at!r}: LALFA learns its strength; leave it out')
        super().__init__(at=at, steps=steps, weight=weight, strengths=(1.0,), **kwargs)
        self._name = f'strength_{at.replace(".", "_")}'
        self._raw: list[nn.Parameter] = []
        self._mine = 0

    def modules(self) -> dict[str, nn.Module]:
        """The parameter of its strength."""
        return {self._name: _Strength()}

    def bind(self, model: nn.Module) -> None:
        """Find the strengths of all layers.

        Raises:
            ValueError: If the model was built without this parameter.
        """
        super().bind(model)
        strengths = _raw_strengths(model)
        if self._name not in strengths:
            raise ValueError(
                f'LALFA at {self.at!r}: the model has no strength of this name. It must exist '
                'before the optimizer does: declare the augmentation in '
                "model=dict(type='mmfeataug.AugmentedModel', of=..., augmentations=[...]), by the "
                'whole path of the place (AugmentedBackbone and AugmentedNeck do not have it)'
            )
        self._raw, self._mine = list(strengths.values()), list(strengths).index(self._name)

    @property
    def strength(self) -> Tensor:
        """The current strength, ``(1,)``, in the autograd graph."""
        return _strengths(self._raw)[self._mine : self._mine + 1]

    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """One view; see :meth:`FeatureAugmentation.views`."""
        for view in super().views(features, gradients, tail):
            pairs = zip(features, view.features, strict=True)
            yield View([f + self.strength * (v - f) for f, v in pairs])


@AUGMENTATIONS.register_module()
class StrengthNorm(BatchAugmentation):
    r"""The l1 norm of L-ALFA's strengths as a term of the loss: :math:`l_1 \sum_l |w_l|`.

    Because the strengths sum to 1, it is constant while none is negative. It pushes back negative
    strengths, which would move features so that the loss falls. Declare it once, beside
    :class:`LALFA`. Source: as there; the release's factor is 1.

    Args:
        at: Any module that runs in each pass; it is not changed.
        l1: Factor of the norm.
    """

    one_place = True

    def __init__(self, *, at: str, l1: float = 1.0) -> None:
        super().__init__(at=at)
        self.l1 = non_negative('l1', l1, at)
        self._raw: list[nn.Parameter] = []

    @property
    def name(self) -> str:
        """See :class:`Augmentation`."""
        return 'strength_norm'

    @property
    def active(self) -> bool:
        """False without a factor."""
        return self.l1 > 0

    def bind(self, model: nn.Module) -> None:
        """Find the strengths.

        Raises:
            ValueError: If there are none.
        """
        self._raw = list(_raw_strengths(model).values())
        if not self._raw:
            raise ValueError(
                f'StrengthNorm at {self.at!r}: the model has no strengths; declare LALFA in '
                "model=dict(type='mmfeataug.AugmentedModel', of=..., augmentations=[...])"
            )

    def losses(
        self, inputs: Tensor, clean: list[Tensor], network: CopyPass, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """One term; see :meth:`BatchAugmentation.losses`."""
        yield self.l1 * _strengths(self._raw).abs().sum()
