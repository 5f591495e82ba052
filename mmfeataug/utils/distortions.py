# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Distortions of images that leave every pixel where it is."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.utils import get_object_from_string
from torch import Tensor

DISTORTIONS: tuple[dict[str, Any], ...] = (
    dict(type='ColorJiggle', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05),
    dict(type='RandomGamma', gamma=(0.5, 2.0)),
    dict(type='RandomGaussianBlur', kernel_size=(9, 9), sigma=(0.5, 2.5)),
    dict(type='RandomMotionBlur', kernel_size=(3, 11), angle=180.0, direction=0.0),
    dict(type='RandomGaussianNoise', std=0.05),
    dict(type='RandomGaussianNoise', std=0.15),
)
"""Photometric changes, blur and noise: the three families of FMA's combined augmentations. The
strengths are ours; the paper's are not known to us."""


def build_distortions(configs: Sequence[dict[str, Any]]) -> list[Callable[[Tensor], Tensor]]:
    """Distortions from configs whose ``type`` is an intensity augmentation of kornia, or the dotted
    path of a class of one's own.

    Raises:
        ImportError: If kornia is not installed, or there is no such class.
        ValueError: For an unknown type, or one of kornia's that moves pixels.
    """
    try:
        from kornia import augmentation as kornia
    except ImportError:
        raise ImportError(
            "distortions come from kornia: pip install 'mmfeataug[robustness]'"
        ) from None
    if not configs or isinstance(configs, (dict, str)):
        raise ValueError(f'distortions={configs!r}: give a list of at least one')
    built: list[Callable[[Tensor], Tensor]] = []
    for config in configs:
        settings = dict(config)
        name = settings.pop('type', None)
        if '.' in str(name):
            built.append(_own(name)(**settings))
            continue
        kind = getattr(kornia, str(name), None)
        if kind is None:
            raise ValueError(
                f'distortions: kornia.augmentation has no {name!r}; write '
                "dict(type='RandomGaussianNoise', std=0.1), for example"
            )
        if not issubclass(kind, kornia.IntensityAugmentationBase2D):
            raise ValueError(
                f'distortions: {name} moves pixels, and boxes, masks and features would no longer '
                'fit; choose photometric changes, blur or noise'
            )
        built.append(kind(**{'p': 1.0, **settings}))
    return built


def _own(path: str) -> Callable[..., Any]:
    if (kind := get_object_from_string(path)) is None:
        raise ImportError(f'distortions: there is no {path}; give package.module.Class')
    return kind


def refuse_channels(distortions: Sequence[Callable[[Tensor], Tensor]], channels: int) -> None:
    """Try distortions on an image of so many channels.

    Raises:
        ValueError: With the names of those that do not take it, and of those that do.
    """
    works: dict[bool, list[str]] = {True: [], False: []}
    said = ''
    streams = torch.get_rng_state()
    for distortion in distortions:
        try:
            # Wide blurs need as many pixels.
            taken = distortion(torch.rand(1, channels, 128, 128)).shape[1] == channels
        except Exception as error:  # Whatever the library below says.
            taken, said = False, said or f' ({error})'
        works[taken].append(type(distortion).__name__)
    torch.set_rng_state(streams)
    if works[False]:
        raise ValueError(
            f'{", ".join(works[False])} cannot distort images of {channels} channel(s){said}: give '
            f'distortions=[...] without, such as {", ".join(works[True]) or "RandomGaussianNoise"}'
        )


def combined_distortion(
    images: Tensor, distortions: Sequence[Callable[[Tensor], Tensor]]
) -> Tensor:
    """Each image with one distortion of its own, drawn from PyTorch's random stream.

    Args:
        images: ``(N, C, H, W)`` in 0 to 1.
        distortions: Callables of ``(1, C, H, W)``.

    Returns:
        Same shape, in 0 to 1, without gradient.

    Source: combined augmentations of https://arxiv.org/abs/2012.01386.
    """
    with torch.no_grad():
        choice = torch.randint(len(distortions), (len(images),)).tolist()
        rows = [distortions[k](image[None]) for k, image in zip(choice, images, strict=True)]
        return torch.cat(rows).clamp(0, 1)
