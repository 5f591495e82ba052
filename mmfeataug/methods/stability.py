# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Stability training: a loss term that keeps predictions or embeddings stable under noise."""

from collections.abc import Sequence

from torch import Tensor

from mmfeataug.functional import feature_distance, prediction_divergence
from mmfeataug.registry import AUGMENTATIONS

from .consistency import Consistency

GAUSSIAN_NOISE = (dict(type='RandomGaussianNoise', std=0.1),)
FORMS = ('prediction', 'embedding')


@AUGMENTATIONS.register_module()
class StabilityTraining(Consistency):
    r"""Add a loss term for the difference between a noisy copy and the clean image.

    In the prediction form the term is the divergence of the predicted distributions, at the layer
    that yields logits (``decode_head.conv_seg``; ``roi_head.bbox_head.fc_cls`` with
    ``hold='rpn_head'``, so that both passes look at the same proposals; RetinaNet's
    ``bbox_head.retina_cls`` with ``sigmoid=True``); in the embedding form the l2 distance of
    features. Paper: https://arxiv.org/abs/1604.04326. With ``distortions`` of several families it
    is the "CA + ST" that FMA's paper compares with.

    Args:
        at: One place or several.
        form: ``'prediction'`` or ``'embedding'``.
        sigmoid: Treat each class as a separate binary decision.
        distortions: Gaussian noise as in the paper; its strength here is ours.
        weight, task_weight, target, teacher, side, bn, hold, image_range: See :class:`Consistency`.
    """

    def __init__(
        self,
        *,
        at: str | Sequence[str],
        form: str = 'prediction',
        sigmoid: bool = False,
        distortions: Sequence[dict] = GAUSSIAN_NOISE,
        **kwargs,
    ) -> None:
        super().__init__(at=at, distortions=distortions, **kwargs)
        if form not in FORMS:
            raise ValueError(f'form={form!r} at {at!r}: choose one of {", ".join(FORMS)}')
        if sigmoid and form == 'embedding':
            raise ValueError(
                f'sigmoid=True at {at!r} is of predictions: leave it out of form={form!r}'
            )
        self.form, self.sigmoid = form, sigmoid

    @property
    def name(self) -> str:
        """Prefix of what is logged."""
        return 'stability'

    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """Divergence or distance, see the class."""
        if self.form == 'embedding':
            return feature_distance(x, target, 'l2')
        return prediction_divergence(x, target, self.sigmoid)
