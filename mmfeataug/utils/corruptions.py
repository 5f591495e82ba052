# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Names of the common corruptions."""

FAMILIES: dict[str, tuple[str, ...]] = dict(
    noise=('gaussian_noise', 'shot_noise', 'impulse_noise'),
    blur=('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'),
    weather=('snow', 'frost', 'fog', 'brightness'),
    digital=('contrast', 'elastic_transform', 'pixelate', 'jpeg_compression'),
    extra=('speckle_noise', 'gaussian_blur', 'spatter', 'saturate'),
)
"""As in ImageNet-C, whose authors call brightness weather and contrast digital. The extra ones are
meant for choosing settings without looking at the others."""

ALL = tuple(name for family in FAMILIES.values() for name in family)
BENCHMARK = tuple(name for name in ALL if name not in FAMILIES['extra'])
"""The 15 that published means are over."""
