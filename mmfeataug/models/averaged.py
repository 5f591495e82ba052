# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Averages of a model's weights over training."""

from math import cos, pi

from mmengine.logging import MessageHub
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn

from mmfeataug.registry import MODELS


@MODELS.register_module()
class CosineEMA(ExponentialMovingAverage):
    """Exponential moving average whose momentum falls over the training.

    The momentum of the source weights follows half a cosine from ``momentum`` to ``end_momentum``.
    As in mmengine, 0.001 keeps 0.999 of the average. In a run:
    ``dict(type='mmengine.EMAHook', ema_type='mmfeataug.CosineEMA')`` in ``custom_hooks``.

    Args:
        model: To average.
        momentum: At first.
        end_momentum: At the end.
        total: Number of updates in training; None: the iterations of the run, which mmengine's
            message hub knows.
        constant: Share of the training at its beginning that keeps the first momentum.
        interval, device, update_buffers: See mmengine. Buffers (of batch norms) are the model's
            own, or averaged with ``update_buffers=True``.

    Source: https://arxiv.org/abs/2312.11954.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.001,
        end_momentum: float = 1e-6,
        total: int | None = None,
        constant: float = 0.1,
        **kwargs,
    ) -> None:
        super().__init__(model, momentum, **kwargs)
        if not 0 <= end_momentum <= momentum:
            raise ValueError(
                f'end_momentum={end_momentum!r}: give a number from 0 to momentum={momentum!r}'
            )
        if not 0 <= constant <= 1:
            raise ValueError(f'constant={constant!r}: give a share of the training, from 0 to 1')
        self.end_momentum, self.total, self.constant = end_momentum, total, constant

    def momentum_at(self, step: int) -> float:
        """Momentum of the update with this number.

        Raises:
            ValueError: If nothing tells how many there are.
        """
        total = self.total or MessageHub.get_current_instance().get_info('max_iters')
        if not total:
            raise ValueError('CosineEMA outside of a run: give total=, the number of updates')
        done = min(1.0, step / total)
        if done < self.constant:
            return self.momentum
        return self.end_momentum + (self.momentum - self.end_momentum) * (cos(pi * done) + 1) / 2

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        """Update in place."""
        averaged_param.lerp_(source_param, self.momentum_at(int(steps)))
