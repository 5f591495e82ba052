# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Range and channels of images, before and after what normalises them."""

import warnings
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

Range = tuple[float, float]
KNOWN: tuple[float, ...] = (1.0, 255.0, 65535.0)
"""Largest values of images that are told apart by looking at them; the smallest is 0."""
_NORMALIZED: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()


class PixelScale:
    """Grey levels of 0 to 255 in the place of preprocessed images, whatever their range was.

    A level is 1/255 of the range of the images before anything normalises them: the model's data
    preprocessor, also a nested one, and a ``Normalize`` step of the pipeline
    (:func:`learn_pipeline`). The range is told, or learnt from the first images: 0 to 255, 0 to 1
    or 0 to 65535.

    Args:
        model: With a ``data_preprocessor`` of OpenMMLab; without one, images are raw.
        image_range: Smallest and largest value of the images; None learns it.

    Raises:
        ValueError: If ``image_range`` is none, or (with the first images) they are not in it or in
            none that is known.
    """

    def __init__(self, model: nn.Module, image_range: Range | None = None) -> None:
        check_range(image_range)
        self.range, self._checked = image_range, False
        preprocessor = inner_preprocessor(model)
        steps = [_NORMALIZED.get(model), preprocessor]
        # From what the network sees to the file: the last one first.
        self._affine = [
            (torch.as_tensor(s.mean).float(), torch.as_tensor(s.std).float())
            for s in reversed(steps)
            if getattr(s, 'std', None) is not None and getattr(s, 'mean', None) is not None
        ]

    def raw(self, images: Tensor) -> Tensor:
        """Grey levels of preprocessed images ``(N, C, H, W)``."""
        if not self._checked:
            self._check(images)
        low, high = self._bounds
        values = self._values(images)
        return values if (low, high) == (0, 255) else (values - low) * (255 / (high - low))

    def preprocessed(self, raw: Tensor) -> Tensor:
        """The inverse of :meth:`raw`."""
        low, high = self._bounds
        values = raw if (low, high) == (0, 255) else low + raw * ((high - low) / 255)
        for mean, std in reversed(self._affine):
            values = (values - _like(mean, values)) / _like(std, values)
        return values

    def level(self, images: Tensor) -> float | Tensor:
        """One grey level, in units of preprocessed images; broadcasts to them."""
        if not self._checked:
            self._check(images)
        low, high = self._bounds
        unit: float | Tensor = (high - low) / 255
        for _, std in self._affine:
            unit = unit / _like(std, images)
        return unit

    @property
    def _bounds(self) -> Range:
        return self.range or (0.0, 255.0)

    def _values(self, images: Tensor) -> Tensor:
        for mean, std in self._affine:
            images = images * _like(std, images) + _like(mean, images)
        return images

    def _check(self, images: Tensor) -> None:
        values = self._values(images.detach().float())
        found = spread(values)
        if found is None:
            return
        self._checked = True
        if self.range is not None:
            low, high = self.range
            if not low - (high - low) / 2 <= found[0] <= found[1] <= 2 * high - low:
                raise ValueError(
                    f'image_range={self.range!r}: the first images hold values from '
                    f'{found[0]:.4g} to {found[1]:.4g} before they are normalised'
                )
            return
        top = _top(found, values)
        if top is None:
            raise ValueError(
                f'the first images hold values from {found[0]:.4g} to {found[1]:.4g} where grey '
                'levels of 0 to 255 (or 0 to 1, or 0 to 65535) were expected: something else than '
                'the data preprocessor normalises them, or they have another range; say '
                'image_range=(smallest, largest) of what the data preprocessor is given'
            )
        if top != 255:
            warnings.warn(
                f'images are taken to hold 0 to {top:g} (the first hold {found[0]:.4g} to '
                f'{found[1]:.4g}); a grey level is 1/255 of that. image_range=(smallest, largest) '
                'says otherwise',
                stacklevel=2,
            )
        self.range = 0.0, top


def learn_pipeline(model: nn.Module, transforms: Iterable[Any]) -> None:
    """Remember how the pipeline of a model normalises images, for every :class:`PixelScale` of it.

    Args:
        model: Its own preprocessor comes after the pipeline.
        transforms: Built steps.
    """
    steps = [t for t in transforms if type(t).__name__ == 'Normalize' and hasattr(t, 'std')]
    if steps:
        _NORMALIZED[model] = steps[-1]
    else:
        _NORMALIZED.pop(model, None)


def turns_to_rgb(model: nn.Module) -> bool:
    """Whether images that mmcv loads reach the network as RGB."""
    parts = inner_preprocessor(model), _NORMALIZED.get(model)
    # mmsegmentation's has no underscore.
    names = ('_channel_conversion', 'channel_conversion', 'to_rgb')
    return any(getattr(part, name, False) for part in parts for name in names)


def inner_preprocessor(model: nn.Module) -> Any:
    """What normalises the images: the data preprocessor, or the one inside of it."""
    found: Any = getattr(model, 'data_preprocessor', None)
    while hasattr(found, 'data_preprocessor'):
        found = found.data_preprocessor
    return found


def channels_of(model: nn.Module) -> int:
    """How many channels the images of a model have: those that its preprocessor normalises, or
    those of its first convolution; 3 where nothing says.
    """
    mean = getattr(inner_preprocessor(model), 'mean', None)
    if mean is not None and torch.as_tensor(mean).numel() > 1:
        return torch.as_tensor(mean).numel()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and 'data_preprocessor' not in name:
            # YOLO's Focus puts four neighbours into channels.
            parents = accumulate(name.split('.')[:-1], '{}.{}'.format)
            kinds = [type(model.get_submodule(path)).__name__ for path in parents]
            return module.in_channels // 4 if 'Focus' in kinds else module.in_channels
    return 3


def check_range(image_range: Range | None) -> None:
    """Refuse what is no range.

    Raises:
        ValueError: Names the setting.
    """
    if image_range is not None and (
        not isinstance(image_range, Sequence)
        or len(image_range) != 2
        or not image_range[0] < image_range[1]
    ):
        raise ValueError(f'image_range={image_range!r}: give the smallest and largest value')


def range_of(image: np.ndarray, told: Range | None = None) -> Range:
    """Smallest and largest value that a loaded image can have.

    Args:
        image: Of whole numbers, or 0 to 255 in floating point. A warning says where 16 bits are
            hardly used, as by files of 10 to 14 bits.
        told: Taken as it is.

    Raises:
        ValueError: For floating point of another range that nobody has told.
    """
    if told is not None:
        return told
    if image.dtype.kind == 'u':
        top = float(np.iinfo(image.dtype).max)
        if top > 255 and image.size and 0 < (largest := int(image.max())) <= top / 4:
            bits = max(8, largest.bit_length())
            warnings.warn(
                f'an image of {image.dtype} uses {bits} of its {8 * image.dtype.itemsize} bits and '
                f'is taken to hold 0 to {top:g}, as a dark one: if all images do, give the step '
                f'image_range=(0, {2**bits - 1}), or write files that use the whole range',
                stacklevel=2,
            )
        return 0.0, top
    values = torch.from_numpy(np.ascontiguousarray(image, np.float32))
    found = spread(values)
    # Dark images are dark; what looks like 0 to 1 is none of them.
    if found is None or _top(found, values) == 255 or 0 <= found[0] < 1.5 < found[1] <= 255:
        return 0.0, 255.0
    raise ValueError(
        f'an image of {image.dtype} holds values from {found[0]:.4g} to {found[1]:.4g}, not 0 to '
        '255: say image_range=(smallest, largest), or put this step right after LoadImageFromFile'
    )


def spread(values: Tensor) -> Range | None:
    """The values that hundredths of all are below and above; None if there are none, or all are
    alike. Distortions of pipelines may leave the range.
    """
    flat = values.flatten()
    flat = flat[:: max(1, len(flat) // 100_000)].float()
    flat = flat[flat.isfinite()]
    if not len(flat):
        return None
    low, high = torch.quantile(flat, flat.new_tensor([0.01, 0.99])).tolist()
    return None if low == high else (low, high)


def _top(found: Range, values: Tensor) -> float | None:
    """The largest value that images of these values can have; None if that is not known."""
    sample = values.flatten()[:: max(1, values.numel() // 1000)].float()
    # Levels of a file are whole, however dark it is; padding may not be.
    whole = bool(((sample - sample.round()).abs() < 1e-2).float().mean() > 0.5)
    if whole and found[0] >= 0 and 1 < found[1] <= 255:
        return 255.0
    # Not far outside of the range, and not all at its lower end.
    fits = (t for t in KNOWN if found[0] >= -t / 2 and t / 20 < found[1] <= 2 * t)
    return next(fits, None)


def _like(value: Tensor, images: Tensor) -> Tensor:
    value = value.to(images)
    return value if value.dim() > 1 else value.reshape(-1, 1, 1)
