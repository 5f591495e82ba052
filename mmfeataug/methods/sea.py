# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""SeA: semantic adversarial augmentation of last-layer features."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfeataug.engine import FeatureAugmentation, Tail, View, find_module, no_autocast
from mmfeataug.functional import channel_dim, labels_from_gradient, semantic_direction
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.settings import non_negative, positive, share, whole


@AUGMENTATIONS.register_module()
class SeA(FeatureAugmentation):
    r"""Move inputs of a classifier toward the other examples that the gradient points to.

    With rows :math:`x_i` of unit length and :math:`a_i` the direction of
    :func:`mmfeataug.functional.semantic_direction`:

    .. math:: \tilde x_i = normalize(x_i + \eta a_i)

    One view, at the cost of the classifier only: the gradient is that of the clean pass. Rows are
    the RoI vectors before ``roi_head.bbox_head.fc_cls``, the pixels before
    ``decode_head.conv_seg``, the images before ``head.fc``, all with ``side='input'``. Rows keep
    their length, so features that are not normalised keep their range; for unit rows this is the
    paper's formula. Paper: https://arxiv.org/abs/2408.13351. Its margin and temperature belong to
    the loss of the head, see :class:`mmfeataug.models.MarginSoftmaxLoss`.

    Args:
        at: Place; see :class:`FeatureAugmentation`.
        eta: Length of the step, for rows of unit length.
        alpha: Temperature of the weights of other rows.
        rows: Largest number of rows that are moved, drawn at random from those that the loss
            uses. Memory is ``rows`` squared numbers and ``rows`` features, for any size of map.
        background: Index of a background class of the classifier (-1: the last, as in mmdet's RoI
            heads). At least half of the drawn rows are then foreground, if there are any; a batch
            without makes no view. None: all rows are equal.
        weight: Factor of the view's loss; None is a share, see :class:`FeatureAugmentation`.
        side, bn, learn: See :class:`FeatureAugmentation`.

    Raises:
        ValueError: For invalid settings; ``background`` where the tap is not the input of a
            linear classifier; fewer than two rows.
    """

    strength_name = 'eta'
    strength_most = 1.0
    """A step as long as the row: behind it, the normalisation takes most of what is added."""

    def __init__(
        self,
        *,
        at: str,
        eta: float = 0.8,
        alpha: float = 0.01,
        rows: int = 512,
        background: int | None = None,
        weight: float | None = None,
        side: str = 'input',
        **kwargs,
    ) -> None:
        super().__init__(at=at, side=side, **kwargs)
        self.eta = non_negative('eta', eta, at)
        self.weight = share('weight', weight, at)
        whole('rows', rows, 2, at)
        self.alpha, self.rows, self.background = positive('alpha', alpha, at), rows, background
        self._classifier: nn.Parameter | None = None

    @property
    def active(self) -> bool:
        """False if the view has no weight or does not move."""
        return bool(self.eta and self.has_weight)

    def bind(self, model: nn.Module) -> None:
        """Find the classifier whose gradients tell foreground from background."""
        if self.background is None:
            return
        module = find_module(model, self.at)
        weight = getattr(module, 'weight', None)
        linear = weight is not None and weight.dim() > 1 and weight[0].numel() == weight.shape[1]
        if self.side != 'input' or weight is None or not linear:
            raise ValueError(
                f'background={self.background!r} at {self.at!r}: foreground is known at the input '
                "of a linear classifier only, such as at='roi_head.bbox_head.fc_cls', "
                "side='input'; set background=None elsewhere"
            )
        if len(weight) > weight.shape[1]:
            raise ValueError(
                f'background={self.background!r} at {self.at!r}: gradients of {weight.shape[1]} '
                f'features do not tell {len(weight)} classes apart; set background=None'
            )
        if not -len(weight) <= self.background < len(weight):
            raise ValueError(
                f'background={self.background!r} at {self.at!r}: the classifier has '
                f'{len(weight)} classes; give the index of one, such as -1 for the last'
            )
        self._classifier = weight

    def fault(self, features: list[Tensor]) -> str:
        """Why there are fewer than two rows; empty if there are enough."""
        if any(f.numel() > f.shape[channel_dim(f)] for f in features):
            return ''
        shapes = ', '.join(str(tuple(f.shape)) for f in features)
        return f'SeA needs at least two rows, got {shapes}: use a larger batch or another tap'

    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """At most one view; see :meth:`FeatureAugmentation.views`."""
        gradients = self.attack_gradients(features, gradients, tail)
        # Half precision could not tell neighbours apart at so low a temperature.
        with no_autocast(features[0]):
            moved = [
                self._move(f, g, tail.generator) for f, g in zip(features, gradients, strict=True)
            ]
        if any(m is not None for m in moved):
            view = [f if m is None else m for f, m in zip(features, moved, strict=True)]
            yield View(view)

    def _move(self, feature: Tensor, grad: Tensor, generator: torch.Generator) -> Tensor | None:
        # Views with the channels last: the rows alone are copied, not the map.
        x, g = (t.movedim(channel_dim(t), -1) for t in (feature, grad))
        chosen = self._choose(g, generator)
        if len(chosen[0]) < 2:
            return None
        rows, length = F.normalize(x[chosen], dim=1), x[chosen].norm(dim=1, keepdim=True)
        rows = F.normalize(rows + self.eta * semantic_direction(rows, g[chosen], self.alpha), dim=1)
        out = feature.clone()
        out.movedim(channel_dim(out), -1)[chosen] = rows * length
        return out

    def _choose(self, grad: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Indices of the rows to move: a random part of those that have a gradient.

        Args:
            grad: ``(..., C)``.
            generator: Of the draw.

        Returns:
            One index for each leading dimension.
        """
        rows = grad.ne(0).any(dim=-1).nonzero()
        rows = rows[torch.randperm(len(rows), generator=generator, device=rows.device)]
        if self._classifier is None or self.background is None:
            return rows[: self.rows].unbind(1)
        # A random part is enough to tell, and bounds the work on large maps.
        rows = rows[: 16 * self.rows]
        classes = self._classifier.detach().flatten(1)
        label, known = labels_from_gradient(grad[rows.unbind(1)], classes)
        foreground = known & (label != self.background % len(classes))
        chosen = rows[foreground][: self.rows]
        others = rows[~foreground][: min(len(chosen), self.rows - len(chosen))]
        return torch.cat([chosen, others]).unbind(1)
