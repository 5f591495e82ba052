# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""AdvBN: worst-case perturbation of feature statistics."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mmfeataug.engine import FeatureAugmentation, Tail, View, average_over_ranks
from mmfeataug.functional import perturb_statistics, signed_step, statistic_dims
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.settings import non_negative, share, whole


@AUGMENTATIONS.register_module()
class AdvBN(FeatureAugmentation):
    r"""Change channel means and deviations of a feature so that the loss rises most.

    Factors :math:`n_\mu, n_\sigma` of each channel, shared by the batch, start at 1 and take
    ``steps`` signed ascent steps within :math:`[1 - \epsilon, 1 + \epsilon]`:

    .. math:: f^{adv} = (f - \mu) n_\sigma + \mu n_\mu

    One view. Each step evaluates the network behind the tap once, with batch norms and dropout in
    evaluation mode, as in the release. Paper: https://arxiv.org/abs/2009.08965; its objective is
    the plain sum of clean and adversarial loss, its tap the first residual stage, and batch norms
    behind it have a second set for the view (``bn='separate'``). The frozen layers before the tap
    are the backbone's ``frozen_stages``.

    Steps use the sign of the gradient, so factors that do not affect the loss move by rounding
    errors.

    Args:
        at: Place; see :class:`FeatureAugmentation`.
        steps: Number of steps.
        step_size: Of the factors.
        eps: Bound of the factors' distance from 1. Above 1 (the authors use 1.1) a factor can
            be negative, which inverts the channel.
        relu: Clamp the view at 0. None: if no clean value is negative, as behind a ReLU.
        weight: Factor of the view's loss; None is a share, see :class:`FeatureAugmentation`.
        sync: Average means and steps over all processes; False: per process, as in the release.
        side, bn, learn: See :class:`FeatureAugmentation`.

    Raises:
        ValueError: For invalid settings.
    """

    axes = 'batch'

    def __init__(
        self,
        *,
        at: str,
        steps: int = 6,
        step_size: float = 0.2,
        eps: float = 1.1,
        relu: bool | None = None,
        weight: float | None = None,
        sync: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(at=at, **kwargs)
        whole('steps', steps, at=at)
        self.step_size = non_negative('step_size', step_size, at)
        self.eps = non_negative('eps', eps, at)
        self.weight = share('weight', weight, at)
        self.steps, self.relu, self.sync = steps, relu, sync
        # What limits the factors.
        self.strength_name = 'eps' if self.eps < steps * self.step_size else 'step_size'
        self.attack_bn = 'eval'

    @property
    def active(self) -> bool:
        """False if the view has no weight or cannot move."""
        return bool(self.has_weight and self.step_size and self.eps)

    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """One view; see :meth:`FeatureAugmentation.views`."""
        means = [f.mean(statistic_dims(f, 'batch'), keepdim=True) for f in features]
        if self.sync:
            means = [average_over_ranks(m) for m in means]
        relus = [bool((f >= 0).all()) if self.relu is None else self.relu for f in features]
        scales = [torch.ones_like(m) for m in means for _ in range(2)]

        def perturbed(scales: list[Tensor]) -> list[Tensor]:
            each = zip(features, scales[::2], scales[1::2], relus, means, strict=True)
            return [perturb_statistics(f, m, s, relu, mean) for f, m, s, relu, mean in each]

        for _ in range(self.steps):
            leaves = [s.requires_grad_() for s in scales]
            with torch.enable_grad():
                moved = perturbed(leaves)
            _, gradients = tail([m.detach() for m in moved])
            grads = torch.autograd.grad(moved, leaves, gradients)
            if self.sync:
                grads = tuple(average_over_ranks(s) for s in grads)
            scales = [
                signed_step(s.detach(), g, self.step_size).clamp(1 - self.eps, 1 + self.eps)
                for s, g in zip(leaves, grads, strict=True)
            ]
        yield View(perturbed(scales))
