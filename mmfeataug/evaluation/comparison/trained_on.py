# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corruptions that resemble the training augmentations of a run."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.configs import dicts_in, type_name
from mmfeataug.utils.corruptions import ALL, FAMILIES

_NOISE = (*FAMILIES['noise'], 'speckle_noise', 'salt_and_pepper')
_BLUR = (*FAMILIES['blur'], 'gaussian_blur')
_COLOUR = ('brightness', 'contrast', 'saturate', 'planckian_jitter', 'rgb_shift')

_LIGHT = tuple(n for n in FAMILIES['unseen'] if n.startswith('plasma') or 'illumination' in n)

NEAR: dict[str, tuple[str, ...]] = {
    # kornia, Albumentations, mmpretrain and mmseg, in this order.
    **dict.fromkeys(
        ('RandomGaussianNoise', 'RandomSaltAndPepperNoise')
        + ('GaussNoise', 'ISONoise', 'MultiplicativeNoise', 'SaltAndPepper', 'ShotNoise')
        + ('BioMedicalGaussianNoise',),
        _NOISE,
    ),
    **dict.fromkeys(
        ('RandomGaussianBlur', 'RandomMotionBlur', 'RandomBoxBlur', 'RandomMedianBlur')
        + ('Blur', 'MotionBlur', 'MedianBlur', 'AdvancedBlur', 'Defocus', 'GlassBlur', 'ZoomBlur')
        + ('GaussianBlur', 'BioMedicalGaussianBlur'),
        _BLUR,
    ),
    **dict.fromkeys(
        ('ColorJiggle', 'ColorJitter', 'RandomAutoContrast', 'RandomBrightness', 'RandomContrast')
        + ('RandomClahe', 'RandomEqualize', 'RandomGamma', 'RandomHue', 'RandomSaturation')
        + ('RandomBrightnessContrast', 'HueSaturationValue', 'RandomToneCurve', 'RGBShift')
        + ('RandomGrayscale', 'ToGray', 'AugMix', 'TrivialAugmentWide')
        + ('AutoAugment', 'RandAugment', 'Brightness', 'Contrast', 'Color', 'ColorTransform')
        + ('AutoContrast', 'Equalize', 'Lighting', 'PhotoMetricDistortion', 'YOLOXHSVRandomAug')
        + ('CLAHE', 'AdjustGamma', 'BioMedicalRandomGamma'),
        _COLOUR,
    ),
    **dict.fromkeys(('RandomJPEG', 'ImageCompression'), ('jpeg_compression',)),
    **dict.fromkeys(('RandomSnow',), ('snow',)),
    **dict.fromkeys(('RandomFog',), ('fog',)),
    **dict.fromkeys(('RandomRain', 'Spatter'), ('spatter', 'rain')),
    **dict.fromkeys(('RandomRGBShift', 'RandomPlanckianJitter'), _COLOUR),
    **dict.fromkeys(('ElasticTransform', 'RandomElasticTransform'), ('elastic_transform',)),
    **dict.fromkeys(('Downscale', 'PixelDropout'), ('pixelate',)),
    **dict.fromkeys(
        ('RandomPlasmaBrightness', 'RandomPlasmaContrast', 'RandomPlasmaShadow')
        + ('RandomLinearIllumination', 'RandomLinearCornerIllumination')
        + ('RandomGaussianIllumination', 'RandomShadow', 'RandomSunFlare'),
        _LIGHT,
    ),
}
"""Types of steps and distortions, to the corruptions that are near them. What moves or hides pixels
is near none. Steps of one's own can be added."""


def trained_on(cfg: Mapping[str, Any]) -> dict[str, list[str]]:
    """Corruptions that resemble training augmentations of a config, with the types of these.

    The training pipelines and the distortions of methods (given or default) are searched.

    Args:
        cfg: Of a training.
    """
    found: dict[str, list[str]] = {}
    for part in _parts(cfg):
        kind = type_name(part)
        for corruption in _near(part):
            kinds = found.setdefault(corruption, [])
            if kind not in kinds:
                kinds.append(kind)
    return {name: found[name] for name in ALL if name in found}


def _parts(cfg: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Whatever has a type, and the distortions that a type has by default."""
    AUGMENTATIONS.import_from_location()
    places = ('train_dataloader', 'model', 'data_preprocessor', 'custom_hooks')
    for part in dicts_in([cfg.get(place) for place in places]):
        yield part
        if 'distortions' not in part:
            yield from _default(AUGMENTATIONS.module_dict.get(type_name(part)))


def _default(kind: type | None) -> Sequence[Mapping[str, Any]]:
    """Distortions that a class uses where none are given."""
    for one in kind.__mro__ if kind else ():
        # A subclass may hand its arguments on.
        given = inspect.signature(one.__init__).parameters.get('distortions')  # type: ignore[misc]
        if given is not None:
            return given.default
    return ()


def _near(part: Mapping[str, Any]) -> tuple[str, ...]:
    """Corruptions near one step."""
    if type_name(part) != 'Corrupt':
        # mmpretrain has those of torchvision as 'torchvision/ColorJitter'.
        return NEAR.get(type_name(part).rpartition('/')[2], ())
    # A corruption itself is near all of its family.
    name = part.get('corruption')
    groups = (_NOISE, _BLUR, _COLOUR)
    return next((group for group in groups if name in group), (str(name),))
