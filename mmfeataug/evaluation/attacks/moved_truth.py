# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""One step of a pipeline, with ground truth that moves as the image does."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

RECORDS = ('border', 'pad_param', 'scale_factor')
"""What steps of OpenMMLab write down about the pixels that they move."""


class _Placement(NamedTuple):
    """Where a step has put an image in its result: factors, and pixels above and left of it."""

    across: float = 1.0
    down: float = 1.0
    top: int = 0
    left: int = 0


def moved(step: Any, results: dict[str, Any]) -> dict[str, Any]:
    """What a step of a pipeline makes of its input, with ground truth that moves along.

    Raises:
        ValueError: If it moves the image and nobody knows where to, with its name.
    """
    image, records = results.get('img'), {k: copy.deepcopy(results.get(k)) for k in RECORDS}
    before = {k: copy.deepcopy(v) for k, v in results.items() if _is_truth(k, results)}
    # Steps may write into the image.
    held = image.copy() if isinstance(image, np.ndarray) else None
    given = dict(results)
    try:
        results = step(results)
        alone = False
    except Exception:  # It knows other boxes than those of the package.
        truth = {k: given.pop(k) for k in before}
        results, alone = step(given), True
        results = None if results is None else {**results, **truth}
    after = None if results is None else results.get('img')
    if held is None or not isinstance(after, np.ndarray):
        return results
    news = [k for k in RECORDS if repr(records[k]) != repr(results.get(k))]
    # A step that has seen no ground truth may have flipped the image.
    still = held.shape[:2] == after.shape[:2] and not (alone and not np.array_equal(held, after))
    if still and not news:
        return results
    size = after.shape[:2]
    unmoved = [k for k, v in before.items() if _is_unmoved(k, v, results.get(k), size)]
    if not unmoved:
        return results
    placement = _placement(held, after, records, results, news)
    if placement is None:
        raise ValueError(
            f'{type(step).__name__} moves the image and neither moves {", ".join(unmoved)} nor '
            'writes down how (border, pad_param, scale_factor): where ground truth lies in what '
            'the network sees is not known; put it behind steps that do, or leave it out of the '
            'test pipeline'
        )
    for key in unmoved:
        results[key] = _put(before[key], placement, size)
    return results


def _is_truth(key: str, results: Mapping[str, Any]) -> bool:
    return key in ('gt_bboxes', 'gt_masks', 'gt_seg_map', *results.get('seg_fields', ()))


def _is_unmoved(key: str, before: Any, after: Any, size: tuple[int, int]) -> bool:
    if key == 'gt_bboxes':
        return len(before) > 0 and np.array_equal(boxes_of(before), boxes_of(after))
    if key == 'gt_masks':
        return len(before) > 0 and (after.height, after.width) != size
    return after.shape[:2] != size


def boxes_of(boxes: Any) -> np.ndarray:
    """Of a tensor or mmdet's boxes."""
    return np.asarray(getattr(boxes, 'tensor', boxes))


def _placement(
    before: np.ndarray,
    after: np.ndarray,
    records: Mapping[str, Any],
    results: Mapping[str, Any],
    news: list[str],
) -> _Placement | None:
    (height, width), size = before.shape[:2], after.shape[:2]
    common = slice(min(height, size[0])), slice(min(width, size[1]))
    if np.array_equal(after[common], before[common]):
        # Padding, or a crop, below and to the right.
        return _Placement()
    if not news:
        return None
    factors = (results.get('scale_factor'), records['scale_factor'])
    now, then = (np.asarray((1.0, 1.0) if f is None else f, float)[:2] for f in factors)
    across, down = now / then
    top = left = 0
    for key in ('border', 'pad_param'):
        if key in news:
            top, _, left, _ = (round(float(v)) for v in results[key])
    return _Placement(float(across), float(down), top, left)


def _put(truth: Any, placement: _Placement, size: tuple[int, int]) -> Any:
    """Ground truth where a step has put the image."""
    across, down, top, left = placement
    if isinstance(truth, np.ndarray) and truth.ndim == 2 and truth.shape[1:] == (4,):
        moved = truth * np.array([across, down] * 2) + np.array([left, top] * 2)
        return moved.astype(truth.dtype)
    if hasattr(truth, 'rescale_') and hasattr(truth, 'translate_'):
        truth.rescale_((across, down))
        truth.translate_((left, top))
        return truth
    if hasattr(truth, 'to_ndarray'):
        masks = truth.resize((round(truth.height * down), round(truth.width * across))).to_ndarray()
        out = np.zeros((len(masks), *size), masks.dtype)
        _paste(out, masks, top, left)
        from mmdet.structures.mask import BitmapMasks

        return BitmapMasks(out, *size)
    import mmcv

    height, width = truth.shape[:2]
    shape = (round(width * across), round(height * down))
    resized = mmcv.imresize(truth, shape, interpolation='nearest')
    out = np.full((1, *size), 255, truth.dtype)
    _paste(out, resized[None], top, left)
    return out[0]


def _paste(out: np.ndarray, maps: np.ndarray, top: int, left: int) -> None:
    """Maps ``(n, h, w)`` into others, cut off at the border."""
    above, before = max(-top, 0), max(-left, 0)
    maps = maps[:, above:, before:]
    height, width = out.shape[1] - max(top, 0), out.shape[2] - max(left, 0)
    maps = maps[:, : max(height, 0), : max(width, 0)]
    place = out[:, max(top, 0) : max(top, 0) + maps.shape[1], max(left, 0) :]
    place[:, :, : maps.shape[2]] = maps
