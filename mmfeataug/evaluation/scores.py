# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What an evaluator says, as numbers that can be averaged and written down."""

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .robustness import Scores, not_found


def read_scores(
    metrics: Mapping[str, Any], clean: Scores | None, task: str | None, found: int
) -> dict[str, float | None]:
    """Numbers among what an evaluator returned; ``None`` where a metric is undefined.

    Args:
        metrics: What it returned.
        clean: Scores on clean images, if these are not.
        task: Of the model.
        found: Number of instances that it found in all images.
    """
    scores: dict[str, float | None] = {}
    for name, value in metrics.items():
        if getattr(value, 'ndim', None) == 0:
            value = value.item()
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            # COCO's evaluation says -1 where there is no ground truth.
            undefined = not math.isfinite(value) or (task == 'detection' and value == -1)
            scores[name] = None if undefined else float(value)
    if task == 'detection' and clean:
        scores |= not_found(scores, clean, everywhere=not found)
    return scores


def count_found(outputs: Sequence[Any]) -> int:
    """Number of instances in predictions of detectors; 0 in those of others."""
    return sum(len(getattr(output, 'pred_instances', ())) for output in outputs)


def count_tested_only(evaluator: Any, images: Iterable[Mapping[str, Any]]) -> None:
    """Let an evaluator look at the tested images alone: mmdet's ``CocoMetric`` counts the objects
    of all images of its annotation file, and those of images that were not tested as missed.

    Args:
        evaluator: Before it is used.
        images: What is known of each tested image; read only if there is such a metric.

    Raises:
        ValueError: For LVIS, whose evaluation cannot be told.
    """
    ids: list[Any] | None = None
    joined = hasattr(evaluator, 'dataset_prefixes')
    # Of joined data sets, each metric gets those of its own.
    ends = [0, *evaluator._get_cumulative_sizes()] if joined else []
    for i, metric in enumerate(evaluator.metrics):
        # CocoPanopticMetric adds up what it is shown.
        if getattr(metric, 'img_ids', ()) is not None:
            continue
        lvis = getattr(metric, '_lvis_api', None)
        known = getattr(metric, '_coco_api', None) or lvis
        if known is None:
            continue
        if ids is None:
            ids = [image['img_id'] for image in images]
        tested = ids[ends[i] : ends[i + 1]] if joined else ids
        every = set(known.get_img_ids())
        if not set(tested) < every:
            continue
        if known is lvis:
            raise ValueError(
                f'{type(metric).__name__} counts the objects of all {len(every)} images of its '
                f'annotation file, of which {len(tested)} are tested: give it a file of these'
            )
        metric.img_ids = tested
