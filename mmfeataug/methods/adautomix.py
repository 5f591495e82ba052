# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""AdAutoMix: mixed images, with masks by a generator that is trained against a teacher."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfeataug.engine import BatchAugmentation, CopyPass, no_autocast
from mmfeataug.functional import mix, weighted_cosine
from mmfeataug.registry import AUGMENTATIONS, MODELS
from mmfeataug.utils.settings import in_range, non_negative, positive, whole

from .targets import Mixture, mixed_targets

PART = 'mixer'


@AUGMENTATIONS.register_module()
class AdAutoMix(BatchAugmentation):
    r"""Training on images mixed by a generator of masks, which is trained against a teacher.

    The generator sees features of the teacher, an average of the network's weights, and makes masks
    :math:`m`. In every other iteration its loss is

    .. math:: -\beta L_k(x_{mix}) \mp (1 - \beta) \sum_n \lambda_n \cos(z_k(x_{mix}), z_k(x_n))

    and in the others :math:`L_k(x_{mix})`, with the teacher's loss :math:`L_k` and logits
    :math:`z_k`. The network learns from another mixture, whose masks get no gradient, besides the
    clean batch. Paper: https://arxiv.org/abs/2312.11954.

    The generator has parameters, so declare the method in ``mmfeataug.AugmentedModel``. The teacher
    is the average of mmengine's ``EMAHook``, best with ``ema_type='mmfeataug.CosineEMA'``.
    For segmentors and detectors, which the paper does not treat, see
    :func:`mmfeataug.methods.targets.mixed_targets`.

    Args:
        at: Features that the generator sees: one tensor of four dimensions.
        channels: Their number of channels.
        compare: Place of the logits, or other features, that the cosine compares.
        samples: Number of images in a mixture, at least 2.
        random_samples: Draw the number in each iteration, from 2 to ``samples``.
        alpha: Shares are drawn from ``Beta(alpha, alpha)``.
        lam_margin: If 1 minus the share of the first image is below this, the mixture uses the
            shares as masks, without the generator.
        lam_concat, upsample, relu, norm: See ``mmfeataug.MaskGenerator``.
        beta: See the formula.
        adversarial: False always trains the generator to lower the teacher's loss (AutoMix).
        similarity: ``'raise'`` (minus in the formula) makes mixtures similar to their parts, the
            purpose of the term in the paper; ``'lower'`` (plus) is the sign in the release.
        weight: Factor of the network's loss on its mixture. The generator's loss has no factor: set
            the learning rate of its parameters instead (``paramwise_cfg``, key ``feature_aug``).
        mixup_weight: Factor of its loss on a mixture with the shares as masks, if more than two
            images are mixed; the release has 0.5, with ``clean_weight=0.5``.
        teacher_bn: ``'frozen'`` (statistics of the batch) or ``'eval'`` in the teacher.
        bn: Of the network's passes over mixtures.
    """

    needs_teacher = one_place = True
    least_samples = 2

    def __init__(
        self,
        *,
        at: str,
        channels: int,
        compare: str,
        samples: int = 3,
        random_samples: bool = False,
        alpha: float = 1.0,
        lam_margin: float = 0.03,
        lam_concat: bool = False,
        upsample: str = 'bilinear',
        relu: bool = False,
        norm: bool = False,
        beta: float = 0.3,
        adversarial: bool = True,
        similarity: str = 'raise',
        weight: float = 1.0,
        mixup_weight: float = 0.5,
        teacher_bn: str = 'frozen',
        bn: str = 'shared',
    ) -> None:
        super().__init__(at=(at, compare), bn=bn)
        whole('samples', samples, 2, at)
        if random_samples and samples == 2:
            raise ValueError(
                f'random_samples=True at {at!r}: with samples=2 there is nothing to draw'
            )
        if similarity not in ('raise', 'lower'):
            raise ValueError(f"similarity={similarity!r} at {at!r}: choose 'raise' or 'lower'")
        if not adversarial and (beta, similarity) != (0.3, 'raise'):
            raise ValueError(
                f'beta={beta!r}, similarity={similarity!r} at {at!r} are of the adversarial loss: '
                'leave them out where adversarial=False'
            )
        if teacher_bn not in ('frozen', 'eval'):
            raise ValueError(f"teacher_bn={teacher_bn!r} at {at!r}: choose 'frozen' or 'eval'")
        self.samples, self.random_samples = samples, random_samples
        self.alpha = positive('alpha', alpha, at)
        self.lam_margin = in_range('lam_margin', lam_margin, at)
        self.beta = in_range('beta', beta, at)
        self.adversarial = adversarial
        self.sign = -1.0 if similarity == 'raise' else 1.0
        self.weight = non_negative('weight', weight, at)
        self.mixup_weight = non_negative('mixup_weight', mixup_weight, at)
        self.teacher_bn = teacher_bn
        self._mixer_cfg = dict(
            type='mmfeataug.MaskGenerator',
            in_channels=channels,
            lam_concat=lam_concat,
            upsample=upsample,
            relu=relu,
            norm=norm,
        )
        self._mixer: nn.Module | None = None

    @property
    def active(self) -> bool:
        """False if the network learns from no mixture."""
        return bool(self.weight or (self.mixup_weight and self.samples > 2))

    def modules(self) -> dict[str, nn.Module]:
        """The generator."""
        return {PART: MODELS.build(self._mixer_cfg)}

    def bind(self, model: nn.Module) -> None:
        """Find the generator that the model was built with.

        Raises:
            ValueError: If there is none, or more than one.
        """
        kind = MODELS.get('mmfeataug.MaskGenerator')
        found = [m for m in model.modules() if isinstance(m, kind)]
        if len(found) != 1:
            raise ValueError(
                f'AdAutoMix at {self.at!r}: the model has {len(found)} generators of masks instead '
                'of one, which must exist before the optimizer does: declare the augmentation '
                "once, in model=dict(type='mmfeataug.AugmentedModel', of=..., augmentations=[...])"
            )
        self._mixer = found[0]

    def draw(
        self, batch: int, generator: torch.Generator, shared: torch.Generator
    ) -> tuple[Mixture, Mixture]:
        """Draw samples and shares of two mixtures: for the generator's loss, and for the
        network's. Masks are the shares; ``batch`` is at least 2. The number of images is drawn
        from ``shared``, because it decides how many passes there are.
        """
        device = generator.device
        seed = int(torch.randint(2**31, (), generator=generator, device=device))
        random = np.random.default_rng(seed)
        count = self.samples
        if self.random_samples:
            count = int(torch.randint(2, self.samples + 1, (), generator=shared))

        def shares() -> np.ndarray:
            drawn = random.beta(self.alpha, self.alpha, count)
            if count == 2:
                return np.array([drawn[0], 1 - drawn[0]])
            return drawn / drawn.sum()

        def mixture(share: np.ndarray) -> Mixture:
            # The first part is the sample itself; the others are those that follow it by so many
            # places in a random circle, so that no sample is mixed with itself.
            circle, places = random.permutation(batch), np.arange(1, batch)
            steps = random.choice(places, count - 1, replace=batch <= count - 1)
            orders = np.tile(np.arange(batch), (count, 1))
            for order, step in zip(orders[1:], steps, strict=True):
                order[circle] = np.roll(circle, -step)
            lam = torch.tensor(share, dtype=torch.float32, device=device)
            index = torch.tensor(orders, device=device)
            return Mixture(index, lam, lam.view(1, -1, 1, 1).expand(batch, -1, -1, -1))

        first = shares()
        return mixture(first), mixture(shares() if count == 2 else first)

    def ask(self, plain: Mixture, features: Tensor, size: tuple[int, int]) -> Mixture:
        """The mixture with masks of the generator."""
        assert self._mixer is not None
        if 1 - float(plain.shares[0]) < self.lam_margin:
            masks = plain.masks.expand(-1, -1, *size)
        else:
            with no_autocast(features):
                masks = self._mixer(features.float(), plain.index, plain.shares, size)
        return replace(plain, masks=masks)

    def losses(
        self, inputs: Tensor, clean: list[Tensor], network: CopyPass, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """The generator's loss and the network's; see :meth:`BatchAugmentation.losses`."""
        if not network.samples:
            raise ValueError('mixing needs a list of data samples, one for each image')
        if network.counts[0] != 1:
            raise ValueError(
                f'at={self.at!r} yields {network.counts[0]} tensors; name a module that yields '
                "one, such as 'backbone.layer3'"
            )
        height, width = inputs.shape[-2:]
        size = height, width
        plain, own = self.draw(len(inputs), generator, network.shared)

        def loss(mixture: Mixture, **how) -> tuple[list[Tensor], Tensor]:
            images = mix(inputs, mixture.index, mixture.masks.to(inputs.dtype))
            # Targets must not be what the generator learns to change.
            fixed = replace(mixture, masks=mixture.masks.detach())
            with mixed_targets(network.model, network.samples, fixed, generator) as made:
                return network(images, loss=True, samples=made, **how)

        teacher: dict[str, Any] = dict(weights=network.teacher, bn=self.teacher_bn)
        with torch.no_grad():
            features, *targets = network(inputs, **teacher)
        mixture = self.ask(plain, features, size)
        found, value = loss(mixture, **teacher)
        if self.adversarial and network.update_count % 2 == 0:
            similarity = _similarity(found[1:], targets, mixture)
            value = -self.beta * value + (1 - self.beta) * self.sign * similarity
        # None of this is to live through the network's own passes.
        del found, targets, mixture
        yield value
        del value
        if self.weight:
            with torch.no_grad():
                mixture = self.ask(own, features, size)
            yield self.weight * loss(mixture)[1]
        if self.mixup_weight and len(own.index) > 2:
            yield self.mixup_weight * loss(replace(own, masks=own.masks.expand(-1, -1, *size)))[1]


def _similarity(mixed: list[Tensor], clean: list[Tensor], mixture: Mixture) -> Tensor:
    return torch.stack(
        [
            weighted_cosine(m, [c[order] for order in mixture.index], _shares(mixture, m))
            for m, c in zip(mixed, clean, strict=True)
        ]
    ).mean()


def _shares(mixture: Mixture, like: Tensor) -> Tensor:
    """Weights of the parts for features of this shape."""
    if like.dim() == 4:
        return F.adaptive_avg_pool2d(mixture.masks.detach(), list(like.shape[2:]))  # type: ignore[arg-type]
    return mixture.shares.expand(len(like), -1)
