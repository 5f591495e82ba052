# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""MRFP and MRFP+: add features of random convolutions, and perturb styles."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfeataug.engine import find_module
from mmfeataug.registry import AUGMENTATIONS

from .normalization_perturbation import NormalizationPerturbation
from .statistic import StatisticTransform

PLAIN, WIDE = 1, 2
"""Dilations of the 3x3 convolutions."""


class MapTransform(StatisticTransform):
    """Random convolutions need maps."""

    def fault(self, features: list[Tensor]) -> str:
        """No maps, maps that vanish on the way, or too few samples."""
        for f in features:
            if f.dim() != 4 or min(f.shape[2:]) < 2:
                return (
                    f'{type(self).__name__} at {self.at!r} needs maps (N, C, H, W) of at least 2 '
                    f'by 2, got {tuple(f.shape)}: choose the place of a larger map, such as '
                    "'backbone.maxpool'"
                )
        return super().fault(features)


@AUGMENTATIONS.register_module()
class MRFP(MapTransform):
    r"""Add the output of a random auto-encoder to a feature (HRFP) and perturb its style (NP+).

    .. math:: y = \mathrm{NP^+}(x) + d(e(x))

    each part with the probability ``prob``, independently. The encoder :math:`e` is over-complete:
    four 3x3 convolutions enlarge the map to twice its height and width, and its channels to four
    times as many; the decoder :math:`d` reduces it again. Both get new random weights in each pass
    and are not trained; gradients pass through them. Paper: https://arxiv.org/abs/2311.18331;
    widths, sizes, distributions and probabilities are those of the authors' release, which reads
    and changes the output of the stem's max pool.

    The method has NP+ behind the first stage as well: a second entry, ``NormalizationPerturbation``
    with ``plus=True``. In the release both NP+ act in the same iterations, here each has its draw.
    The release's backbone of MRFP+ has instance norms besides (the stem's, and one in the last
    block of each of the first two stages); they are no part of this. The paper's text was not
    available to us: where it differs from the release is not known.

    Args:
        at: Place; ``'backbone.maxpool'`` is the release's place.
        prob, side, as_view, weight, bn, learn: See :class:`StatisticTransform`.
    """

    def __init__(self, *, at: str, prob: float = 0.5, **kwargs) -> None:
        super().__init__(at=at, prob=prob, **kwargs)
        self._style = NormalizationPerturbation(at=at, plus=True)

    def is_drawn(self, generator: torch.Generator | None = None) -> bool:
        """Whether at least one of the two parts acts."""
        return bool(torch.rand((), generator=generator) < 1 - (1 - self.prob) ** 2)

    def transform(self, feature: Tensor) -> Tensor:
        """See the class."""
        # Given that a part acts: HRFP does with the probability p / (1 - (1 - p)^2).
        noisy = bool(torch.rand(()) * (2 - self.prob) < 1)
        styled = not noisy or bool(torch.rand(()) < self.prob)
        changed = self._style.transform(feature) if styled else feature
        return changed + decode(encode(feature), feature) if noisy else changed


@AUGMENTATIONS.register_module()
class HRFPPlus(MapTransform):
    """The addition of MRFP+: a random encoding of the stem's feature, added late in the decoder.

    A layer that reads one place and changes another; ``mmfeataug.AugmentedModel`` declares it.
    Paper and release: see :class:`MRFP`. Where this differs from the release: the encoder is drawn
    for this place alone, and its width is the decoder's (there it is HRFP's, of 256 channels, the
    decoder's width; in iterations without HRFP that of an earlier iteration); the encoding is
    resized to the decoder's map, there the decoder's map to the encoding. Views from taps in the
    decoder meet the encoding of the pass before them, as a constant.

    Args:
        at: Place, late: the release's place is the input of the last convolution
            (``'decode_head.conv_seg'`` with ``side='input'``).
        source: What is encoded; the release's place is the default.
        prob, side: See :class:`StatisticTransform`.
    """

    least_samples = 1

    def __init__(
        self, *, at: str, source: str = 'backbone.maxpool', prob: float = 0.5, side: str = 'output'
    ) -> None:
        super().__init__(at=at, prob=prob, side=side)
        self.source = source
        self._read: Tensor | None = None

    def bind(self, model: nn.Module) -> None:
        """Refuses: it also reads a place, for which a hook has no tap."""
        raise ValueError(
            f'HRFPPlus at {self.at!r} is a layer: declare it by mmfeataug.AugmentedModel, not by '
            'FeatureAugHook or attach()'
        )

    def install(self, module: nn.Module, owner: nn.Module) -> None:
        """See :meth:`FeatureTransform.install`."""
        super().install(module, owner)
        # First: NP+ and MRFP may change what the source returns.
        find_module(owner, self.source, 'source').register_forward_hook(self._keep, prepend=True)

    def transform(self, feature: Tensor) -> Tensor:
        """See the class.

        Raises:
            ValueError: If ``source`` has not run before, or yields no maps.
        """
        if self._read is None:
            why = 'it has not run before'
        elif not isinstance(self._read, Tensor):
            why = f'it returns {type(self._read).__name__}, not one map'
        else:
            why = self.fault([self._read])
        if why:
            raise ValueError(f'HRFPPlus at {self.at!r}: source={self.source!r}: {why}')
        assert self._read is not None
        code = encode(self._read.to(feature.dtype), feature.shape[1])
        # Replays from a tap in the decoder do not run the source again: a constant to them.
        self._read = self._read.detach()
        size = feature.shape[2:]
        return feature + F.interpolate(code, size=size, mode='bilinear', align_corners=True)

    def _keep(self, module: nn.Module, args: Any, output: Any) -> None:
        self._read = output if self._acts else None

    def __getstate__(self) -> dict[str, Any]:
        """Copies of the model begin without a feature: one in a graph cannot be copied."""
        return {**self.__dict__, '_read': None}


def encode(feature: Tensor, channels: int | None = None) -> Tensor:
    """Through the random, over-complete encoder.

    Args:
        feature: ``(N, C, H, W)``.
        channels: Of the encoding; 4 C if not given.

    Returns:
        ``(N, channels, 2 H, 2 W)``.
    """
    width, size = feature.shape[1], tuple(2 * s for s in feature.shape[2:])
    x = layer(feature, width, PLAIN, scale_factor=1.205)
    x = layer(x, width, PLAIN, scale_factor=1.2)
    x = layer(x, 2 * width, WIDE, scale_factor=1.2)
    return layer(x, channels or 4 * width, WIDE, size=size)


def decode(code: Tensor, like: Tensor) -> Tensor:
    """Through the random decoder, to the shape of the feature that was encoded.

    Args:
        code: ``(N, 4 C, 2 H, 2 W)``.
        like: ``(N, C, H, W)``.
    """
    width = like.shape[1]
    x = layer(code, 2 * width, PLAIN)
    x = layer(x, width, PLAIN, scale_factor=0.838)
    x = layer(x, width, WIDE, scale_factor=0.798)
    return layer(x, width, WIDE, size=like.shape[2:])


def layer(x: Tensor, width: int, dilation: int, **resize: Any) -> Tensor:
    """A 3x3 convolution by Kaiming's normal weights, the nearest resize, a batch norm with its
    batch's statistics and factors of ``N(0, 0.5^2)``, ReLU.

    Args:
        x: ``(N, C, H, W)``.
        width: Channels of the result.
        resize: Arguments of ``interpolate``; none for no resize.
    """
    weight = torch.randn(width, x.shape[1], 3, 3, dtype=x.dtype, device=x.device)
    weight = weight * math.sqrt(2 / (9 * x.shape[1]))
    factor = 0.5 * torch.randn(width, dtype=x.dtype, device=x.device)
    x = F.conv2d(x, weight, padding=dilation, dilation=dilation)
    if resize:
        x = F.interpolate(x, **resize)
    return F.batch_norm(x, None, None, factor, training=True).relu()
