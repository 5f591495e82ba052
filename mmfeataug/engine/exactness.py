# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Whether a replay of recorded results is exact."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from .guards import everywhere
from .losses import Losses
from .recording import TapError
from .tail import TailRunner


def verify(tail: TailRunner, clean: Losses, strict: bool) -> None:
    """Replay once with the unchanged features, and settle whether this tap may use what was
    recorded.

    Args:
        tail: Of a place; nothing is done if that has been verified.
        clean: Losses of the clean pass.
        strict: Raise where it may not, instead of running the whole network for each view.

    Raises:
        TapError: With ``strict``; and if the stock loss cannot be run a second time.
    """
    place, recording = tail.place, tail.recording
    if place.verified:
        return
    place.verified = True
    like = recording.features[0]
    reason = f'it is called from inside {recording.foreign}' if recording.foreign else None
    if reason is None:
        version = recording.version()
        try:
            deviation = _deviation(_replayed(tail, memoize=True), clean)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            deviation, reason = math.inf, f'{type(error).__name__}: {error}'
        written = recording.version() != version and not place.tap.copy_records
        if not everywhere(not written, like):
            # Something writes into recorded results. Run this batch in full, and record copies
            # from the next one on.
            place.tap.copy_records, place.memoize, place.verified = True, False, False
            return
        exact = deviation == 0
        if not everywhere(exact, like):
            # A model that does not repeat itself to the last bit is not the tap's fault. One that
            # repeats itself, but not the clean pass, is.
            try:
                noise = _deviation(*(_replayed(tail, memoize=False) for _ in range(2)))
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                raise TapError(
                    f'tap at {place.tap}: the stock loss cannot be run a second time on the same '
                    f'batch ({type(error).__name__}: {error}), which views need'
                ) from error
            exact = 0 < noise < math.inf and deviation <= 4 * noise
        if everywhere(exact, like):
            place.memoize = True
            return
    message = (
        f'tap at {place.tap}: a replay of recorded results is not exact '
        f'({reason or "the loss differs from the clean one"})'
    )
    if strict:
        raise TapError(f'{message}; choose another tap or strict=False')
    warnings.warn(
        f'{message}; each view runs the whole network instead, at the cost of one more forward '
        'pass',
        stacklevel=2,
    )
    place.memoize = False


def _replayed(tail: TailRunner, memoize: bool) -> Losses:
    return tail.losses(tail.clean, 'frozen', grad=False, memoize=memoize)


def _deviation(losses: Losses, clean: Losses) -> float:
    """Largest relative difference of a loss term."""
    if losses.keys() != clean.keys():
        return math.inf
    deviation = 0.0
    for key in losses:
        for a, b in zip(_tensors(losses[key]), _tensors(clean[key]), strict=True):
            a, b = torch.nan_to_num(a.float()), torch.nan_to_num(b.float())
            if not torch.equal(a, b):
                scale = b.abs().max().clamp(min=torch.finfo(b.dtype).tiny)
                deviation = max(deviation, float((a - b).abs().max() / scale))
    return deviation


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)
