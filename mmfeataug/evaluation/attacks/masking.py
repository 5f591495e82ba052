# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Signs that a model hides its gradient instead of being robust."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor
from torch.nn import functional as F

from mmfeataug.engine import Tail, View
from mmfeataug.utils.progress import progress_bar

from .attacked_batch import AttackedBatch, Target, rows_of
from .base import Attack, Clean
from .pgd import PGD
from .pixel_loss import TERM, PixelLoss, PixelLossError
from .strongest import known_scores
from .transfer import Transferred

LARGE = 64.0
"""Grey levels with which the gradient leads any model to a score of 0."""

LARGE_STEPS = 20
"""At least as many steps lead there; steps of 2.5 * 64 / 10 are coarse."""

FLOOR = 0.05
"""Share of the clean score that may be left there."""

GAIN = 0.01
"""Share of the loss that more steps have to add."""

NOISE = 0.5
"""Share of what the attack adds to the loss that a random direction may add."""

Transfer = Callable[[], list[Tensor]]
"""Points of a batch that are made on another model."""


class RandomDirection(PGD):
    """A point at the rim of the ball, of random signs (``'linf'``) or a random direction
    (``'l2'``); no gradient is asked.
    """

    def views(self, features: list[Tensor], gradients: list[Tensor], tail: Tail) -> Iterator[View]:
        """The moved features; see :meth:`FeatureAugmentation.views`."""
        moved = []
        for feature in features:
            space = self._space(feature)
            draw = self.images.draw(feature, self.norm, self.unit == 'pixel')
            if self.norm == 'linf':
                direction = draw.sign()
            else:
                rows = draw.flatten(1) if draw.dim() > 1 else draw[None]
                tiny = torch.finfo(rows.dtype).tiny
                direction = F.normalize(rows, dim=1, eps=tiny).reshape(draw.shape)
            moved.append(space.at(space.confine(self.eps * direction)))
        yield View(moved, 1.0)


class MaskingCheck:
    """Attacks on some images, beside each other, and what their losses and scores say.

    Args:
        settings: Of :class:`PGD`, with ``eps`` the largest one.
        transfers: Whether there are points made on another model.

    Attributes:
        attack: What the others are compared to.
        images: Number of images that this process has seen.
    """

    def __init__(self, settings: Mapping[str, Any], transfers: bool = False) -> None:
        self.attack = PGD(**settings)
        steps = self.attack.steps
        free = {k: v for k, v in settings.items() if k not in ('steps', 'step_size')}
        place = dict(at=self.attack.at, side=self.attack.side)
        self.trials: dict[str, Attack] = {
            'clean': Clean(**place),
            'random direction': RandomDirection(**settings),
            '1 step': PGD(**free, steps=1),
            'steps': self.attack,
            'twice the steps': PGD(**free, steps=2 * steps),
        }
        if settings.get('at', 'inputs') == 'inputs':
            self._large = {**free, 'eps': LARGE, 'norm': 'linf', 'steps': max(steps, LARGE_STEPS)}
            self.trials['eps 64'] = PGD(**self._large)
        if transfers:
            self.trials['transferred'] = Clean(**place)
        # Of each trial: loss, images, score, images that have one.
        self._sums = torch.zeros(len(self.trials), 4, dtype=torch.float64)
        self.images = 0

    def add(self, batch: AttackedBatch, transfer: Transfer | None = None) -> None:
        """Make all attacks on a batch; ``transfer`` gives its points made on another model, where
        these are asked for.
        """
        count = len(batch.truth)
        if 'eps 64' in self.trials and not self.images and has_pixel_loss(batch):
            # The loss of a segmentor grows without end at pixels that are wrong already.
            self.trials['eps 64'] = PGD(**{**self._large, 'kind': 'cospgd', 'against': ()})
        rows = []
        for name, attack in self.trials.items():
            moved = transfer() if name == 'transferred' and transfer is not None else None
            features = batch.attack(attack) if moved is None else moved
            loss = batch.loss_of(features, self.attack.against)
            scores = known_scores(batch, batch.predict(features))
            rows.append((loss * count, count, sum(scores), len(scores)))
        self.images += count
        # Boxes without area have infinite losses: such a batch compares nothing.
        if all(math.isfinite(row[0]) for row in rows):
            self._sums += torch.tensor(rows, dtype=torch.float64)

    def result(self) -> dict[str, Any]:
        """``measured``: loss and score of each trial; ``signs``: those of :func:`signs`."""
        all_reduce(self._sums)
        measured = {}
        for name, (loss, images, score, known) in zip(
            self.trials, self._sums.tolist(), strict=True
        ):
            measured[name] = dict(
                loss=loss / images if images else None, score=score / known if known else None
            )
        eps, steps = self.attack.eps, self.attack.steps
        return dict(
            eps=eps,
            images=int(self._sums[0, 1]),
            measured=measured,
            signs=signs(measured, eps, steps),
        )


def look_for_masking(
    target: Target,
    dataloader: Any,
    settings: Mapping[str, Any],
    images: int,
    other: Transferred | None = None,
) -> dict[str, Any]:
    """Result of a :class:`MaskingCheck` on the first images of a test set.

    Args:
        target: Place of the model.
        dataloader: Of the test.
        settings: Of :class:`PGD`.
        images: How many, in whole batches.
        other: The same attack on another model.
    """
    check = MaskingCheck(settings, transfers=other is not None)
    with progress_bar() as progress, torch.enable_grad():
        task = progress.add_task('signs of a hidden gradient', total=images)
        for data_batch in dataloader:
            given = copy.deepcopy(data_batch) if other is not None else None
            data = target.model.data_preprocessor(data_batch, False)
            for rows in rows_of(data, check.attack.alone):
                inputs = data['inputs'][rows]
                moved = None if other is None else partial(other, given, inputs, rows)
                with target.open(inputs, data['data_samples'][rows]) as batch:
                    check.add(batch, moved)
            progress.update(task, completed=check.images)
            if check.images * get_world_size() >= images:
                break
    return check.result()


def has_pixel_loss(batch: AttackedBatch) -> bool:
    """Whether SegPGD and CosPGD can be made on a model."""
    try:
        with PixelLoss(batch.model).weighted(lambda logits, labels, wrong: torch.ones_like(wrong)):
            batch.loss_of(batch.features, (TERM,))
    except PixelLossError:
        return False
    return True


def signs(
    measured: Mapping[str, Mapping[str, float | None]], eps: float, steps: int
) -> list[dict[str, Any]]:
    """What speaks for a hidden gradient: ``name``, ``fired``, ``values`` and ``meaning``.
    ``fired`` is None where something could not be measured.

    Args:
        measured: ``loss`` and ``score`` by name of the trial.
        eps: Strength of all but ``'eps 64'``.
        steps: Of ``'steps'``.
    """
    losses = {name: _number(trial['loss']) for name, trial in measured.items()}
    scores = {name: _number(trial['score']) for name, trial in measured.items()}
    clean, attacked = losses['clean'], losses['steps']
    more = [losses[name] for name in ('1 step', 'steps', 'twice the steps')]
    found = [
        _sign(
            'more steps gain nothing',
            not max(more[1:]) > more[0] + GAIN * abs(more[0]),
            dict(zip(('loss, 1 step', f'loss, {steps} steps', f'{2 * steps}'), more, strict=True)),
            f'at eps {eps:g} the loss after {steps} or {2 * steps} steps is not above that after '
            'one: the gradient does not lead uphill; attack with weights of another model '
            '(--transfer), or without gradients',
        )
    ]
    if 'eps 64' in measured:
        floor = FLOOR * scores['clean']
        found.append(
            _sign(
                'eps 64 leaves more than the floor',
                scores['eps 64'] > floor,
                {'score, eps 64': scores['eps 64'], 'floor': floor, 'clean': scores['clean']},
                'a quarter of the range of grey levels destroys an image, and the attack does not '
                'use it: it fails, so smaller eps say nothing; use more --steps, --attack '
                'ensemble, --transfer',
            )
        )
    rise = losses['random direction'] - clean
    found.append(
        _sign(
            'a random direction is as strong',
            not attacked - clean > 0 or rise >= NOISE * (attacked - clean),
            {'rise, random': rise, 'rise, attack': attacked - clean},
            f'random signs of size {eps:g} add at least half of what the attack adds to the loss: '
            'its gradient is no better than a guess; test with noise (tools/test_robustness.py) '
            'and --transfer',
        )
    )
    if 'transferred' in measured:
        found.append(
            _sign(
                'a transferred attack is stronger',
                losses['transferred'] > attacked,
                {'loss, transferred': losses['transferred'], 'loss, white box': attacked},
                "points made on another model raise this model's loss more than its own gradient "
                'does, so that hides something; report the transferred attack',
            )
        )
    return found


def flag_lines(flags: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown, one for each sign, of what :meth:`MaskingCheck.result` returns."""
    head = f'Signs of a hidden gradient, at eps {flags["eps"]:g} on {flags["images"]} images:'
    lines = [head, '']
    for sign in flags['signs']:
        values = ', '.join(f'{name} {_shown(value)}' for name, value in sign['values'].items())
        said = {True: '**FIRED**', False: 'silent:', None: 'not measured:'}[sign['fired']]
        said = f'{said} {sign["name"]}'
        meaning = f'. {sign["meaning"]}' if sign['fired'] else ''
        lines.append(f'- {said} ({values}){meaning}')
    return lines


def _sign(name: str, fired: bool, values: Mapping[str, float], meaning: str) -> dict[str, Any]:
    known = all(map(math.isfinite, values.values()))
    finite: dict[str, float | None] = {
        key: value if math.isfinite(value) else None for key, value in values.items()
    }
    return dict(name=name, fired=bool(fired) if known else None, values=finite, meaning=meaning)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _shown(value: float | None) -> str:
    return '-' if value is None else f'{value:.4g}'


def fired(flags: Mapping[str, Any] | None) -> Sequence[str]:
    """Names of the signs that speak for a hidden gradient."""
    return [sign['name'] for sign in (flags or {}).get('signs', ()) if sign['fired']]
