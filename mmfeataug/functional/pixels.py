# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Weights of pixels in attacks on segmentation."""

import torch
from torch import Tensor


def segpgd_weights(wrong: Tensor, step: int, steps: int) -> Tensor:
    """Weights of SegPGD: correct pixels count more, and less so with each step.

    Args:
        wrong: Whether a pixel's class is wrong, any shape.
        step: From 0.
        steps: How many there are.

    Source: Gu et al., https://arxiv.org/abs/2207.12391: ``step / (2 steps)`` for wrong pixels, the
    rest of 1 for right ones.
    """
    share = step / (2 * steps)
    return torch.where(wrong, share, 1 - share)


def cospgd_weights(logits: Tensor, labels: Tensor) -> Tensor:
    """Weights of CosPGD: cosine of the angle between probabilities and the one-hot label; no
    gradient.

    Args:
        logits: ``(N, C, H, W)``.
        labels: ``(N, H, W)``, each a class.

    Source: Agnihotri et al., https://arxiv.org/abs/2302.02213.
    """
    probability = logits.detach().softmax(1)
    own = probability.gather(1, labels[:, None])[:, 0]
    # The one-hot vector has length 1.
    return own / probability.norm(dim=1)
