# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Adversarial directions as mixtures of other examples."""

import torch
from torch import Tensor
from torch.nn import functional as F


def semantic_direction(x: Tensor, grad: Tensor, alpha: float) -> Tensor:
    """For each row, the mixture of the other rows that a gradient points to.

    With ``g`` the normalised gradient of row ``i``, the other rows are weighted by
    ``softmax(g . x_j / alpha)`` and summed; a row has no part in its own direction.

    Args:
        x: ``(B, D)``, at least two rows, of unit length in the paper's setting.
        grad: Gradient of the loss toward ``x``, same shape; its length does not matter.
        alpha: Temperature, positive: near 0 the direction is a single other row.

    Returns:
        ``(B, D)`` rows of unit length.

    Raises:
        ValueError: For fewer than two rows.

    Source: SeA, https://arxiv.org/abs/2408.13351. Memory: one B x B matrix.
    """
    if x.dim() != 2 or len(x) < 2:
        raise ValueError(
            f'semantic_direction needs at least two rows, got shape {tuple(x.shape)}: an example '
            'moves toward the others'
        )
    similarity = F.normalize(grad, dim=1) @ x.t() / alpha
    similarity.fill_diagonal_(float('-inf'))
    return F.normalize(similarity.softmax(dim=1) @ x, dim=1)


def labels_from_gradient(grad: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Recover the label of each input of a linear classifier from its gradient.

    For a cross entropy the gradient toward the logits is ``p - target``: its only negative entry is
    the label's. It is recovered from the gradient toward the input, that times the weights.

    Args:
        grad: ``(B, D)`` gradient of the loss toward the inputs.
        weight: ``(K, D)`` of the classifier, K at most D.

    Returns:
        ``(B,)`` label, and ``(B,)`` whether any class had a target at all (a sigmoid's background
        and ignored rows have none).
    """
    # Weights as they are initialised are small, and their pseudo-inverse ill-conditioned.
    logits = grad.double() @ torch.linalg.pinv(weight.double())
    lowest, label = logits.min(dim=1)
    return label, lowest < -1e-3 * logits.abs().amax(dim=1).clamp(min=1e-300)
