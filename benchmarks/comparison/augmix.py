# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""AugMix without the operations that move pixels, as an opponent; for boxes and masks."""

from collections.abc import Callable

import torch
from kornia import enhance
from torch import Tensor

SEVERITY = 3


def _level() -> float:
    """Strength of one operation, 0 to 1."""
    return float(torch.empty(()).uniform_(0.1, SEVERITY)) / 10


OPERATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    enhance.normalize_min_max,
    enhance.equalize,
    lambda x: enhance.posterize(x, 4 - int(4 * _level())),
    lambda x: enhance.solarize(x, 1 - _level()),
)


class AugMix:
    """Chains of operations, mixed with each other and with the image.

    Paper: https://arxiv.org/abs/1912.02781: three chains of one to three operations, weights of a
    Dirichlet and a beta distribution with parameter 1, severity 3. Rotation, shear and translation
    are left out. One of the distortions of ``mmfeataug.StabilityTraining``.
    """

    def __call__(self, image: Tensor) -> Tensor:
        """Mix one image, ``(1, C, H, W)`` in 0 to 1."""
        weights = torch.distributions.Dirichlet(torch.ones(3)).sample()
        mixed = torch.zeros_like(image)
        for weight in weights:
            chain = image
            for _ in range(int(torch.randint(1, 4, ()))):
                chain = OPERATIONS[int(torch.randint(len(OPERATIONS), ()))](chain)
            mixed = mixed + weight * chain
        share = torch.distributions.Beta(1.0, 1.0).sample()
        return share * image + (1 - share) * mixed
