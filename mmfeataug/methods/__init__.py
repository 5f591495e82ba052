# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Augmentation methods, for ``FeatureAugHook(augmentations=[...])``."""

from .adautomix import AdAutoMix
from .advbn import AdvBN
from .advstyle import AdvStyle
from .afan import AFAN
from .distort_images import DistortImages
from .dsu import DSU
from .fma import FMA
from .lalfa import LALFA, StrengthNorm
from .mixstyle import MixStyle
from .moex import MoEx
from .mrfp import MRFP, HRFPPlus
from .normalization_perturbation import NormalizationPerturbation
from .padain import PAdaIN
from .sea import SeA
from .stability import StabilityTraining
from .targets import Mixture

__all__ = [
    'AFAN',
    'DSU',
    'FMA',
    'LALFA',
    'MRFP',
    'AdAutoMix',
    'AdvBN',
    'AdvStyle',
    'DistortImages',
    'HRFPPlus',
    'MixStyle',
    'Mixture',
    'MoEx',
    'NormalizationPerturbation',
    'PAdaIN',
    'SeA',
    'StabilityTraining',
    'StrengthNorm',
]
