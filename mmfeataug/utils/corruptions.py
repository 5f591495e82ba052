# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Names of the common corruptions."""

FAMILIES: dict[str, tuple[str, ...]] = dict(
    noise=('gaussian_noise', 'shot_noise', 'impulse_noise'),
    blur=('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'),
    weather=('snow', 'frost', 'fog', 'brightness'),
    digital=('contrast', 'elastic_transform', 'pixelate', 'jpeg_compression'),
    extra=('speckle_noise', 'gaussian_blur', 'spatter', 'saturate'),
    unseen=(
        *('plasma_brightness', 'plasma_shadow', 'planckian_jitter', 'rgb_shift'),
        *('linear_illumination', 'corner_illumination', 'gaussian_illumination'),
        *('salt_and_pepper', 'rain'),
    ),
)
"""As in ImageNet-C, whose authors call brightness weather and contrast digital. The extra ones are
meant for choosing settings without looking at the others, the unseen ones for what no training here
comes near."""

ALL = tuple(name for family in FAMILIES.values() for name in family)
BENCHMARK = tuple(name for name in ALL if name not in FAMILIES['extra'] + FAMILIES['unseen'])
"""The 15 that published means are over."""
