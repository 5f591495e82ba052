# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corruptions that nobody trained near: no method and no opponent here uses their like."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from mmfeataug.utils.distortions import build_distortions

_LIGHT = dict(sign=(-1.0, 1.0))  # darker or brighter, by coin
_SPOT = dict(_LIGHT, center=(0.1, 0.9), sigma=(0.3, 0.8))
_DROPS = dict(drop_width=(-5, 5))

SETTINGS: dict[str, tuple[str, Mapping[str, Any], tuple[Mapping[str, Any], ...]]] = dict(
    plasma_brightness=(
        'RandomPlasmaBrightness',
        dict(roughness=(0.5, 0.5)),
        tuple(dict(intensity=(i, i)) for i in (0.45, 0.55, 0.68, 0.78, 0.88)),
    ),
    plasma_shadow=(
        'RandomPlasmaShadow',
        dict(roughness=(0.5, 0.5)),
        tuple(
            dict(shade_intensity=(-i, -i), shade_quantity=(q, q))
            for i, q in ((0.3, 0.48), (0.4, 0.5), (0.5, 0.51), (0.6, 0.53), (0.7, 0.55))
        ),
    ),
    planckian_jitter=(
        'RandomPlanckianJitter',
        dict(mode='blackbody'),
        # Rows of its table, from 3000 K (0) to 15000 K (24).
        tuple(dict(select_from=rows) for rows in ([5, 11], [4, 13], [4, 15], [3, 20], [2, 24])),
    ),
    rgb_shift=(
        'RandomRGBShift',
        {},
        tuple(
            {f'{channel}_shift_limit': limit for channel in 'rgb'}
            for limit in (0.2, 0.28, 0.36, 0.45, 0.6)
        ),
    ),
    linear_illumination=(
        'RandomLinearIllumination',
        _LIGHT,
        tuple(dict(gain=(g, g)) for g in (0.5, 0.65, 0.78, 0.9, 1.0)),
    ),
    corner_illumination=(
        'RandomLinearCornerIllumination',
        _LIGHT,
        tuple(dict(gain=(g, g)) for g in (0.4, 0.5, 0.62, 0.72, 0.85)),
    ),
    gaussian_illumination=(
        'RandomGaussianIllumination',
        _SPOT,
        tuple(dict(gain=(g, g)) for g in (0.42, 0.52, 0.65, 0.75, 0.85)),
    ),
    salt_and_pepper=(
        'RandomSaltAndPepperNoise',
        dict(salt_vs_pepper=(0.5, 0.5)),
        tuple(dict(amount=(a, a)) for a in (0.012, 0.017, 0.024, 0.035, 0.05)),
    ),
    rain=(
        'RandomRain',
        _DROPS,
        # Drops per pixel; each is up to a twelfth of the image high.
        tuple(dict(density=d) for d in (0.005, 0.01, 0.017, 0.026, 0.04)),
    ),
)
"""Of each corruption: kornia's transform, what it has at every severity, and what severities 1 to 5
mean. All act on images in 0 to 1."""


def corrupt_unseen(image: np.ndarray, corruption: str, severity: int, seed: int) -> np.ndarray:
    """One of :data:`SETTINGS`. Pixels stay where they are, and PyTorch's random stream too.

    Args:
        image: RGB, uint8 of shape (height, width, 3).
        corruption: Name of the corruption.
        severity: 1 to 5.
        seed: Of signs, places and maps.

    Returns:
        Array like ``image``. Other versions of kornia may draw other maps from the same seed.
    """
    transform = _transform(corruption, severity, *image.shape[:2])
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        corrupted = transform(pixels)
    levels = (corrupted[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())


@lru_cache(maxsize=64)
def _transform(corruption: str, severity: int, height: int, width: int) -> Any:
    kind, fixed, by_severity = SETTINGS[corruption]
    settings = {**fixed, **by_severity[severity - 1]}
    if 'density' in settings:
        drops = round(settings.pop('density') * height * width)
        settings |= dict(number_of_drops=(drops, drops))
        settings['drop_height'] = (max(height // 24, 1), max(height // 12, 2))
    (transform,) = build_distortions([dict(type=kind, **settings)])
    return transform
