# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What an evaluator says, as numbers that can be averaged and written down."""

import math
import numbers
from collections.abc import Mapping, Sequence
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


def count_tested_only(evaluator: Any, dataset: Any) -> None:
    """Let an evaluator look at the images of ``indices`` alone, where a data set has these: mmdet's
    ``CocoMetric`` counts the objects of all images of its annotation file, and those that were not
    tested as missed.

    Args:
        evaluator: Of a test loop, before its run.
        dataset: What it tests.
    """
    if getattr(dataset, '_indices', None) is None:
        return
    for metric in evaluator.metrics:
        if getattr(metric, '_coco_api', None) is not None and metric.img_ids is None:
            every = (dataset.get_data_info(i) for i in range(len(dataset)))
            metric.img_ids = [info['img_id'] for info in every]
