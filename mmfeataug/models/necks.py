# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Necks that methods use."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from mmfeataug.registry import MODELS


@MODELS.register_module()
class UnitPooling(nn.Module):
    """Average over positions, then normalise to length 1, as the input of SeA's classifier.

    It replaces ``GlobalAveragePooling`` in classifiers of mmpretrain:
    ``neck=dict(type='mmfeataug.UnitPooling')``.

    Source: https://arxiv.org/abs/2408.13351.
    """

    def forward(self, features: Tensor | Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        """Unit rows.

        Args:
            features: ``(N, C, H, W)`` or ``(N, C)``, one or several.

        Returns:
            ``(N, C)``, one or several.
        """
        if isinstance(features, Tensor):
            return F.normalize(features.flatten(2).mean(2) if features.dim() > 2 else features)
        return tuple(self.forward(f) for f in features)  # type: ignore[misc]
