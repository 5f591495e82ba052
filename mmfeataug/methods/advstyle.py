# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""AdvStyle: adversarial style of the image."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mmfeataug.engine import FeatureAugmentation, Tail, View
from mmfeataug.functional import mean_std, replace_statistics, statistic_dims
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.settings import non_negative, share


@AUGMENTATIONS.register_module()
class AdvStyle(FeatureAugmentation):
    r"""Move channel means and deviations of images by one step that raises the loss.

    Each sample's :math:`\mu, \sigma` of the three colour channels move along their gradient; the
    image normalised by its own statistics gets the new ones. One view; at ``'inputs'`` it costs a
    whole training pass, with other batch norms two. Paper: https://arxiv.org/abs/2207.04892. Its
    code and step size are not known to us; two independent re-implementations step by the gradient,
    at rates of 1 and 3.

    Args:
        at: Place; the paper's place is the image, ``'inputs'``.
        gamma: Factor of the gradient of the loss, a mean over the batch, toward the statistics.
            With ``sign`` the size of the step, in units of the feature: behind a data preprocessor
            that divides by the standard deviation, 1 is about the contrast of an average image.
        sign: Step by the sign of the gradient.
        weight: Factor of the view's loss; None is a share, see :class:`FeatureAugmentation`.
        side, bn, learn: See :class:`FeatureAugmentation`.
    """

    strength_name = 'gamma'
    axes = 'spatial'

    def __init__(
        self,
        *,
        at: str = 'inputs',
        gamma: float = 1.0,
        sign: bool = False,
        weight: float | None = None,
        **kwargs,
    ) -> None:
        super().__init__(at=at, **kwargs)
        self.gamma, self.sign = non_negative('gamma', gamma, at), sign
        self.weight = share('weight', weight, at)

    @property
    def active(self) -> bool:
        """False if the view has no weight or does not move."""
        return bool(self.gamma and self.has_weight)

    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """One view; see :meth:`FeatureAugmentation.views`."""
        view = []
        gradients = self.attack_gradients(features, gradients, tail)
        for f, grad in zip(features, gradients, strict=True):
            own = mean_std(f, statistic_dims(f, 'spatial'))
            mean, std = (s.clone().requires_grad_() for s in own)
            with torch.enable_grad():
                same = replace_statistics(f, own, (mean, std))
            grads = torch.autograd.grad(same, (mean, std), grad)
            steps = [g.sign() if self.sign else g for g in grads]
            mean, std = (s + self.gamma * step for s, step in zip(own, steps, strict=True))
            view.append(replace_statistics(f, own, (mean, std.clamp(min=0))))
        yield View(view)
