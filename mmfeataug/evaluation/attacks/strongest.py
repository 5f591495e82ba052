# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Several attacks on each image, of which the strongest counts."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from mmfeataug.utils.tasks import task_of

from .attacked_batch import AttackedBatch
from .base import Attack
from .image_scores import image_score
from .pixel_loss import PixelLossError

CLASSES = ('cls', 'class', 'obj', 'conf', 'center', 'heatmap')
BOXES = ('bbox', 'box', 'iou', 'dfl', 'reg', 'l1', 'wh', 'offset', 'pts')
"""Words in the names of terms of detectors' losses."""

Members = Sequence[tuple[str, Attack]]


class Strongest:
    """The strongest of several attacks, image by image.

    An attack is stronger if it leaves a lower :func:`image_score`, or the same and a higher loss.

    Args:
        members: The attacks on a batch, with names; several may have one.
        steps: Of each.
        step_size: Of each; None: they differ.
        against: Words in the names of the terms of the loss that decides; empty: the whole loss.
    """

    alone = True

    def __init__(
        self,
        members: Callable[[AttackedBatch], Members],
        steps: int,
        step_size: float | None = None,
        against: Sequence[str] = (),
    ) -> None:
        self.members, self.against = members, tuple(against)
        self.steps, self.step_size = steps, step_size

    def attack(self, batch: AttackedBatch) -> tuple[list[Tensor], str]:
        """Of a batch of one image: the attacked features, and the name of the attack.

        Raises:
            PixelLossError: If no attack can be made on this model.
        """
        best: tuple[tuple[float, float], list[Tensor], str] | None = None
        refused: PixelLossError | None = None
        for name, attack in self.members(batch):
            try:
                features = batch.attack(attack)
            except PixelLossError as error:
                refused = error
                warnings.warn(f'{name} is left out: {error}', stacklevel=2)
                continue
            scores = known_scores(batch, batch.predict(features))
            loss = batch.loss_of(features, self.against)
            strength = -sum(scores), loss if math.isfinite(loss) else -math.inf
            if best is None or strength > best[0]:
                best = strength, features, name
        if best is None:
            assert refused is not None
            raise refused
        return best[1], best[2]


def known_scores(batch: AttackedBatch, outputs: Sequence[Any]) -> list[float]:
    """:func:`image_score` of a batch's predictions, of the images that have one."""
    classes = getattr(batch.model, 'num_classes', None)
    # Models may return losses behind their predictions.
    pairs = zip(outputs, batch.truth, strict=False)
    found = [image_score(output, truth, classes) for output, truth in pairs]
    return [score for score in found if not math.isnan(score)]


def terms_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Parts of a detector's loss that are worth an attack of their own: by ``'cls'``, ``'bbox'``
    and ``'rpn'`` names of its terms, where there are some but not all.
    """

    def named(words: Sequence[str]) -> list[str]:
        return [name for name in names if any(word in name for word in words)]

    boxes = named(BOXES)
    parts = {
        'cls': [name for name in named(CLASSES) if name not in boxes],
        'bbox': boxes,
        'rpn': named(['rpn']),
    }
    return {key: found for key, found in parts.items() if 0 < len(found) < len(names)}


def ensemble(
    make: Callable[..., Attack], restarts: int = 1, random_start: bool = True
) -> Callable[[AttackedBatch], Members]:
    """The attacks that suit a model.

    Args:
        make: An attack of a ``kind``, from the ``start`` of a number, perhaps ``against`` terms.
        restarts: Number of starts of each.
        random_start: Whether starts differ.
    """
    made: dict[tuple[str, ...], Members] = {}

    def members(batch: AttackedBatch) -> Members:
        # Made once: attacks learn the range of images from the first batch.
        terms = tuple(batch.terms)
        if terms not in made:
            kinds = _kinds(task_of(batch.model), terms)
            made[terms] = [
                (name, make(start=start, **options))
                for name, options, starts in kinds
                for start in range(restarts * starts if random_start else 1)
            ]
        return made[terms]

    return members


def _kinds(task: str, terms: Sequence[str]) -> list[tuple[str, dict[str, Any], int]]:
    """Names, settings, and how many starts one restart is."""
    if task == 'segmentation':
        return [(kind, dict(kind=kind), 1) for kind in ('pgd', 'segpgd', 'cospgd', 'apgd')]
    # A classifier's loss has one term: other starts are what is left to try.
    starts = 1 if task == 'detection' else 2
    found = [(kind, dict[str, Any](kind=kind), starts) for kind in ('pgd', 'apgd')]
    parts = terms_of(terms) if task == 'detection' else {}
    return found + [(f'pgd on {part}', dict(against=words), 1) for part, words in parts.items()]
