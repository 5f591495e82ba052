# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Mean and standard deviation of features, and functions that replace them."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

AXES = ('channel', 'spatial', 'batch')


def channel_dim(x: Tensor) -> int:
    """Dimension of the channels: last for tokens ``(N, L, C)``, otherwise 1 as in ``(N, C, H, W)``
    and ``(R, C)``.
    """
    return 2 if x.dim() == 3 else min(1, x.dim() - 1)


def statistic_dims(x: Tensor, axes: str) -> tuple[int, ...]:
    """Dimensions that a statistic is taken over.

    Args:
        x: ``(N, C, H, W)``, tokens ``(N, L, C)`` or vectors ``(R, C)``.
        axes: ``'channel'``: over channels, at each position. ``'spatial'``: over positions, for
            each sample and channel. ``'batch'``: over samples and positions, for each channel, as
            batch norm does.

    Raises:
        ValueError: If ``axes`` is unknown, or names fewer than two values to take a deviation of.
    """
    if axes not in AXES:
        raise ValueError(f'axes={axes!r}: choose one of {", ".join(AXES)}')
    if fault := too_few([x], axes):
        raise ValueError(fault)
    return _dims(x, axes)


def too_few(features: Iterable[Tensor], axes: str) -> str:
    """Why one of the features has too few values for a deviation, and the remedy; else empty.

    Args:
        features, axes: See :func:`statistic_dims`.
    """
    for x in features:
        dims = _dims(x, axes)
        count = math.prod(x.shape[d] for d in dims) if dims else 0
        if count < 2:
            return (
                f'axes={axes!r} needs at least two values to take a deviation of, a feature of '
                f'shape {tuple(x.shape)} has {count}: choose another place, such as a layer before '
                'the pooling, or other axes where the method has that setting'
            )
    return ''


def _dims(x: Tensor, axes: str) -> tuple[int, ...]:
    channel = channel_dim(x)
    positions = tuple(d for d in range(1, x.dim()) if d != channel)
    return {'channel': (channel,), 'spatial': positions, 'batch': (0, *positions)}[axes]


def mean_std(x: Tensor, dims: tuple[int, ...], eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Mean and ``sqrt(unbiased variance + eps)`` over ``dims``, which are kept with size 1; in
    float32 or better.

    `torch.var_mean` says the same and takes up to 15 times as long over channels on a CPU.
    """
    wide = _wide(x)
    mean = wide.mean(dims, keepdim=True)
    count = math.prod(x.shape[d] for d in dims)
    var = (wide - mean).square().sum(dims, keepdim=True) / (count - 1)
    return mean, (var + eps).sqrt()


def deviation(x: Tensor) -> Tensor:
    """The unit ``'std'`` of perturbations: standard deviation of each sample and channel over its
    positions, or of the row where there are none, as in ``(R, C)`` and in the ``(R, C, 1, 1)`` of
    global pooling; broadcasts to ``x``.

    It does not depend on what else is in the batch, so a strength means the same in training and
    in an evaluation of single images.
    """
    dims = _dims(x, 'spatial')
    if math.prod(x.shape[d] for d in dims) == 1:
        dims = _dims(x, 'channel')
    return x.std(dims, correction=0, keepdim=True)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def reinject_statistics(
    clean: Tensor, adversarial: Tensor, axes: str = 'channel', eps: float = 1e-5
) -> Tensor:
    """The clean feature with the adversarial one's mean and deviation: ``(f - mu) / sd * sd_adv +
    mu_adv``.

    Args:
        clean: ``(N, C, H, W)``, ``(N, L, C)`` or ``(R, C)``.
        adversarial: Same shape.
        axes: What the statistics are taken over, see :func:`statistic_dims`.
        eps: Added to the variance. Where the clean feature is nearly constant, small deviations
            grow by up to ``sd_adv / sqrt(eps)``.

    Raises:
        ValueError: See :func:`statistic_dims`.

    Source: adversarial feature normalisation of A-FAN, https://arxiv.org/abs/2103.12171, figure 2;
    the axes of its release are ``'channel'``.
    """
    dims = statistic_dims(clean, axes)
    return replace_statistics(clean, mean_std(clean, dims, eps), mean_std(adversarial, dims, eps))


def replace_statistics(x: Tensor, own: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> Tensor:
    """``x`` with another mean and standard deviation: ``(x - mu) / sd * sd' + mu'``.

    Args:
        x: Any shape, floating point; the result has its type.
        own: ``mu`` and ``sd``, as :func:`mean_std` takes them; they broadcast to ``x``.
        new: ``mu'`` and ``sd'``, likewise.

    Source: adaptive instance normalisation, https://arxiv.org/abs/1703.06868, equation 8.
    """
    (own_mean, own_std), (mean, std) = own, new
    scale = std / own_std
    return torch.addcmul(mean - own_mean * scale, _wide(x), scale).to(x.dtype)


def swap_statistics(
    x: Tensor, other: Tensor, axes: str, eps: float = 1e-5, *, detach: bool = False
) -> Tensor:
    """Replace mean and deviation of each sample by those of another one.

    Args:
        x: ``(N, C, H, W)``, ``(N, L, C)`` or ``(R, C)``.
        other: ``(N,)`` index of the other sample, for each.
        axes: What the statistics are taken over, within samples: see :func:`statistic_dims`.
        eps: Added to the variances.
        detach: Whether the other sample's mean and deviation are constants, as in pAdaIN; in MoEx
            they have a gradient.

    Raises:
        ValueError: See :func:`statistic_dims`.

    Source: :func:`replace_statistics`.
    """
    own = mean_std(x, statistic_dims(x, axes), eps)
    mean, std = (s.detach() if detach else s for s in own)
    return replace_statistics(x, own, (mean[other], std[other]))


def perturb_statistics(
    x: Tensor,
    mean_scale: Tensor | float,
    std_scale: Tensor | float,
    relu: bool = True,
    mean: Tensor | None = None,
) -> Tensor:
    """Scale the mean and standard deviation of each channel.

    ``(x - mu) * std_scale + mu * mean_scale``.

    Args:
        x: ``(N, C, H, W)``, ``(N, L, C)`` or ``(R, C)``.
        mean_scale: Factor of the means, 1 changes nothing; broadcasts to ``x``.
        std_scale: Factor of the deviations, likewise; negative values invert a channel.
        relu: Clamp at 0, as behind a ReLU.
        mean: ``mu``; None: the mean over the batch and all positions, without a gradient.

    Source: AdvBN, https://arxiv.org/abs/2009.08965; with means of each sample, and without the
    clamp, it is NP's formula, https://arxiv.org/abs/2211.04393.
    """
    if mean is None:
        mean = x.detach().mean(statistic_dims(x, 'batch'), keepdim=True)
    std_scale = torch.as_tensor(std_scale, dtype=x.dtype, device=x.device)
    out = torch.addcmul((mean_scale - std_scale) * mean, std_scale, x)
    return out.clamp(min=0) if relu else out
