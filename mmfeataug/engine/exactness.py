# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Whether a replay of recorded results is exact."""

import itertools
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from .batch import Losses
from .recorded_loss import RecordedTail
from .tap import TapError
from .votes import on_all_ranks, on_any_rank

ROUNDING, FLOOR = 1e-6, 1e-5
"""Relative deviation of a loss that rounding explains, and that it explains in a model which is not
bit-stable."""
AGAIN = 30, 300, 1000
"""Augmented steps in which taps are verified again, and all multiples of the last one."""


def verify(tail: RecordedTail, strict: bool, step_count: int = 0) -> None:
    """Replay once with the unchanged features, and settle whether this tap may use what was
    recorded.

    Args:
        tail: Nothing is done if its tap has been verified and no further look is due.
        strict: Raise where it may not, instead of running the whole network for each view.
        step_count: Number of augmented steps before this one.

    Raises:
        TapError: With ``strict``; and if the stock loss cannot be run a second time, or moves on
            with each run.
    """
    tap, recording, clean = tail.tap, tail.recording, tail.recorded.losses
    due = step_count and (step_count in AGAIN or step_count % AGAIN[-1] == 0)
    if tap.verified and not (due and tap.memoize):
        return
    tap.verified = True
    like = recording.features[0]
    (foreign,) = on_any_rank([recording.foreign is not None], like)
    caller = recording.foreign or 'another module (on another process)'
    reason = f'it is called from inside {caller}' if foreign else None
    if not foreign:
        version = recording.version()
        try:
            deviation = _deviation(_replayed(tail, memoize=True), clean)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            deviation, reason = math.inf, f'{type(error).__name__}: {error}'
        unwritten = tap.copy_records or recording.version() == version
        unwritten, exact = on_all_ranks([unwritten, deviation == 0], like)
        if not unwritten:
            # Something writes into recorded results. Run this batch in full, and record copies
            # from the next one on.
            tap.copy_records, tap.memoize, tap.verified = True, False, False
            return
        if not exact:
            (exact,) = on_all_ranks([_is_noise(tail, deviation)], like)
        if exact:
            tap.memoize = True
            return
    message = (
        f'tap at {tap}: a replay of recorded results is not exact '
        f'({reason or "the loss differs from the clean one"})'
    )
    if strict:
        raise TapError(f'{message}; choose another tap or strict=False')
    warnings.warn(
        f'{message}; each view runs the whole network instead, at the cost of one more forward '
        'pass',
        stacklevel=2,
    )
    tap.memoize = False


def _is_noise(tail: RecordedTail, deviation: float) -> bool:
    """Whether the model repeats itself no better: that is not the tap's fault. One that repeats
    itself to the last bit, but not the clean pass, is.
    """
    try:
        repeats = [_replayed(tail, memoize=False) for _ in range(3)]
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        raise TapError(
            f'tap at {tail.tap}: the stock loss cannot be run a second time on the same batch '
            f'({type(error).__name__}: {error}), which views need'
        ) from error
    _refuse_drift(tail, repeats)
    noise = max(_deviation(a, b) for a, b in itertools.combinations(repeats, 2))
    # Three repeats tell the size of noise badly.
    return deviation <= ROUNDING or (0 < noise < math.inf and deviation <= max(4 * noise, FLOOR))


def _refuse_drift(tail: RecordedTail, repeats: list[Losses]) -> None:
    """Raise if a term moves on in one direction with each run: the loss reads what an earlier call
    has left somewhere, and nobody puts it back.
    """
    like = tail.features[0]
    (suspected,) = on_any_rank([bool(_moving(tail, repeats))], like)
    if not suspected:
        return
    # Noise is in order for so long once in a million.
    repeats += [_replayed(tail, memoize=False) for _ in range(6)]
    moving = _moving(tail, repeats)
    (found,) = on_any_rank([bool(moving)], like)
    if not found:
        return
    term, values = moving or ('a term', [])
    raise TapError(
        f'the loss moves on each time it is run on the same batch ({term}: '
        f'{", ".join(f"{v:.6g}" for v in values[:4]) or "on another process"}, ...): it depends on '
        'what earlier calls have left outside of the model, in a global variable for instance, '
        'which views would move on as well. Keep that in an attribute or buffer of a module'
    )


def _moving(tail: RecordedTail, repeats: list[Losses]) -> tuple[str, list[float]] | None:
    """A term that rises, or falls, from the clean pass through all repeats, by more than rounding;
    with its values.
    """
    passes = [tail.recorded.losses, *repeats]
    for key in passes[0]:
        if any(key not in losses for losses in passes):
            continue
        values = [
            sum(float(t.detach().cpu().double().sum()) for t in _tensors(losses[key]))
            for losses in passes
        ]
        steps = [b - a for a, b in itertools.pairwise(values)]
        one_way = all(s > 0 for s in steps) or all(s < 0 for s in steps)
        if one_way and abs(values[-1] - values[0]) > ROUNDING * abs(values[0]):
            return key, values
    return None


def _replayed(tail: RecordedTail, memoize: bool) -> Losses:
    """In the precision of the clean pass, whatever that of views is."""
    losses, _ = tail.losses(
        tail.features, 'frozen', grad=False, memoize=memoize, full_precision=False
    )
    return losses


def _deviation(losses: Losses, clean: Losses) -> float:
    """Largest relative difference of a loss term."""
    if losses.keys() != clean.keys():
        return math.inf
    deviation = 0.0
    for key in losses:
        ours, theirs = _tensors(losses[key]), _tensors(clean[key])
        if len(ours) != len(theirs):
            return math.inf
        for a, b in zip(ours, theirs, strict=True):
            if a.shape != b.shape or not torch.equal(a.isfinite(), b.isfinite()):
                return math.inf
            # What is not finite is so in both.
            a, b = (t.cpu().double().nan_to_num(0, 0, 0) for t in (a, b))
            if not torch.equal(a, b):
                scale = b.abs().max().clamp(min=torch.finfo(b.dtype).tiny)
                deviation = max(deviation, float((a - b).abs().max() / scale))
    return deviation


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)
