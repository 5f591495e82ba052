# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""AdvStyle: adversarial style of the image."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mmfeataug.engine import FeatureAugmentation, Tail, View
from mmfeataug.functional import (
    mean_std,
    replace_statistics,
    signed_step,
    statistic_dims,
    too_few,
)
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.settings import non_negative


@AUGMENTATIONS.register_module()
class AdvStyle(FeatureAugmentation):
    r"""Images whose channel means and deviations take one step up the loss.

    Each sample's :math:`\mu, \sigma` of the three colour channels move by a signed step; the image
    normalised by its own statistics gets the new ones. One view; at ``'inputs'`` it costs a whole
    training pass. Paper: https://arxiv.org/abs/2207.04892, whose step size is not known to us.

    Args:
        at: Where; the paper's place is the image, ``'inputs'``.
        gamma: Size of the step, in units of the feature. Behind a data preprocessor that divides by
            the standard deviation, 1 is about the contrast of an average image.
        weight: Factor of the view's loss.
        side, bn, learn: See :class:`FeatureAugmentation`.
    """

    def __init__(
        self,
        *,
        at: str = 'inputs',
        gamma: float = 0.5,
        weight: float = 0.5,
        side: str = 'output',
        bn: str = 'shared',
        learn: str = 'tail',
    ) -> None:
        super().__init__(at=at, side=side, bn=bn, learn=learn)
        self.gamma = non_negative('gamma', gamma, at)
        self.weight = non_negative('weight', weight, at)

    @property
    def active(self) -> bool:
        """False if the view has no weight or does not move."""
        return bool(self.gamma and self.weight)

    def fault(self, features: list[Tensor]) -> str:
        """Too few values to take a deviation of."""
        return too_few(features, 'spatial')

    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """One view; see :meth:`FeatureAugmentation.views`."""
        view = []
        for f, grad in zip(features, gradients, strict=True):
            own = mean_std(f, statistic_dims(f, 'spatial'))
            mean, std = (s.clone().requires_grad_() for s in own)
            with torch.enable_grad():
                same = replace_statistics(f, own, (mean, std))
            grads = torch.autograd.grad(same, (mean, std), grad)
            mean, std = (signed_step(s, g, self.gamma) for s, g in zip(own, grads, strict=True))
            view.append(replace_statistics(f, own, (mean, std.clamp(min=0))))
        yield View(view, self.weight)
