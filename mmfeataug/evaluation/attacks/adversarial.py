# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Test loop under attacks of several strengths."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.model import BaseTTAModel
from mmengine.runner import TestLoop

from mmfeataug.engine import patched
from mmfeataug.models import collect
from mmfeataug.registry import LOOPS
from mmfeataug.utils.models import model_of
from mmfeataug.utils.processes import of_first_process
from mmfeataug.utils.progress import progress_bar
from mmfeataug.utils.settings import flag
from mmfeataug.utils.tasks import refuse_branches, task_of

from ..checkpoints import CheckpointCheck
from ..predictions import PREDICTIONS, read_predictions, saving
from ..scores import count_found, count_tested_only
from ..unfinished import fingerprint
from .attacked_batch import Target, rows_of
from .attacks import GRADIENT, make_attack
from .base import Attack
from .curve import markdown, read_earlier_curve, score, write_curve
from .geometry import Geometry
from .masking import fired, look_for_masking
from .pgd import KINDS, PGD
from .strongest import Strongest
from .transfer import Transferred

UNIT_OF = {'statistics': 'factor', 'swap': 'share'}


@LOOPS.register_module()
class AdversarialTestLoop(TestLoop):
    """Run the test of a config once per strength of an attack on images or features.

    The attack raises the model's training loss, with batch norms and dropout in evaluation mode;
    predictions are those of the stock model given the attacked image, or with the attacked feature
    at the place. Strength 0 is the stock test. ``adversarial.json``, a table
    (``.md``) and a curve of the main metric (``.png``) are written after each strength.

    Args:
        runner, dataloader, evaluator: Set by the Runner. The pipeline must load annotations.
        attack: ``'pgd'``, ``'apgd'``, ``'segpgd'``, ``'cospgd'``: see :class:`PGD`;
            ``'ensemble'``: all of them that fit the task, and per image the strongest;
            ``'statistics'``: AdvBN's worst channel statistics; ``'swap'``: statistics of other
            images of the batch.
        at: ``'inputs'``, or the dotted path of a module.
        side: ``'output'`` or ``'input'`` of it.
        eps: Strengths, in ``unit``; bounds of AdvBN's factors; shares of a swap.
        steps: None: 10, or AdvBN's 6.
        step_size: None: ``2.5 * eps / steps``, APGD's ``2 * eps``, or AdvBN's 0.2.
        norm: ``'linf'`` or ``'l2'``; None: the first.
        unit: ``'pixel'`` at ``'inputs'``, ``'std'`` or ``'absolute'`` elsewhere; None: the first.
        against: Words in the names of the terms of the loss that are attacked; empty: all.
        random_start, image_range: See :class:`PGD`.
        restarts: Number of random starts; per image the strongest counts.
        seed: Of random starts, by image, and of what losses draw, by batch.
        flag_images: Number of images for the check for masked gradients after the curve; see
            :class:`MaskingCheck`. 0: no check.
        transfer: Checkpoint of another model for a transfer attack in this check.
        transfer_config: Its config file; None: the same config.
        save_predictions: Whether to write those of each strength to ``<out_dir>/predictions``; see
            :func:`~mmfeataug.evaluation.read_predictions`.
        out_dir: Folder of the results; None: the work directory.
        resume: Keep finished strengths of an interrupted run.
        fp16: Must be False.

    Raises:
        ValueError, TypeError: For invalid settings, and if ``out_dir`` has results
            of another run, or results without ``resume``.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluator: Any,
        *,
        attack: str = 'pgd',
        at: str = 'inputs',
        side: str = 'output',
        eps: Sequence[float] = (0.0, 0.5, 1.0, 2.0, 4.0),
        steps: int | None = None,
        step_size: float | None = None,
        norm: str | None = None,
        unit: str | None = None,
        against: Sequence[str] = (),
        random_start: bool = True,
        image_range: Sequence[float] | None = None,
        restarts: int = 1,
        seed: int = 0,
        flag_images: int = 16,
        transfer: str | None = None,
        transfer_config: str | None = None,
        save_predictions: bool = False,
        out_dir: str | None = None,
        resume: bool = False,
        fp16: bool = False,
    ) -> None:
        flag('random_start', random_start)
        if fp16:
            raise ValueError('fp16=True: attacks are made in float32; set fp16=False')
        if isinstance(eps, str) or not isinstance(eps, Sequence):
            raise TypeError(f'eps={eps!r}: give a list, put brackets around it')
        pgd: dict[str, Any] = {}
        gradient = attack in GRADIENT
        if gradient:
            unit = unit or ('pixel' if at == 'inputs' else 'std')
            pgd = dict(norm=norm or 'linf', unit=unit, against=against, random_start=random_start)
            if image_range is not None:
                pgd['image_range'] = tuple(image_range)
        elif against or unit or norm or image_range or not random_start:
            raise ValueError(
                f'against={against!r}, unit={unit!r}, norm={norm!r}, image_range={image_range!r}, '
                f'random_start={random_start!r}: these are settings of pgd, not of {attack!r}'
            )
        if transfer and not (gradient and at == 'inputs'):
            raise ValueError(
                f'transfer={transfer!r} of {attack!r} at {at!r}: it is a sign of gradient attacks '
                "at 'inputs', because two models have no other place in common; leave it out"
            )
        if transfer and not (flag_images and any(eps)):
            raise ValueError(
                f'transfer={transfer!r} with flag_images={flag_images!r} and eps={eps!r}: it is '
                'one of the checks that follow a curve; give flag_images and a strength above 0'
            )
        if transfer_config and not transfer:
            raise ValueError(
                f'transfer_config={transfer_config!r} without transfer: give its checkpoint'
            )
        if image_range is not None and pgd.get('unit') != 'pixel':
            raise ValueError(
                f'image_range={image_range!r} with unit={pgd.get("unit")!r}: only grey levels have '
                'a range; leave it out'
            )
        options = dict(at=at, side=side, steps=steps, step_size=step_size, restarts=restarts, **pgd)
        # Each is made here, so that wrong settings show before the data is read.
        self.attacks: dict[float, Attack | Strongest] = {
            float(e): make_attack(attack, float(e), **options)  # type: ignore[arg-type]
            for e in eps
        }
        if not self.attacks:
            raise ValueError('eps=(): give at least one strength')
        super().__init__(runner, dataloader, evaluator)
        self._fit = CheckpointCheck()
        runner.register_hook(self._fit)
        dataset = self.dataloader.dataset
        count_tested_only(self.evaluator, (dataset.get_data_info(i) for i in range(len(dataset))))
        count, size = len(self.dataloader.sampler), self.dataloader.batch_size
        if attack == 'swap' and size and (size == 1 or count % size == 1):
            raise ValueError(
                f'swap: test_dataloader.batch_size={size} leaves a batch of one image ({count} in '
                'all), and there is no other to swap statistics with: choose another size'
            )
        if attack == 'statistics' and step_size is None:
            step_size = 0.2
        # A config may have whole numbers where the command line gives floats.
        self.settings = dict(
            attack=attack,
            at=at,
            side=side,
            norm=pgd.get('norm'),
            steps=getattr(next(iter(self.attacks.values())), 'steps', 0),
            step_size=None if step_size is None else float(step_size),
            against=list(against),
            seed=seed,
            unit=pgd.get('unit', UNIT_OF.get(attack)),
            random_start=random_start if gradient else None,
            image_range=None if image_range is None else [float(value) for value in image_range],
            restarts=restarts,
        )
        self.model = model_of(runner)
        if isinstance(self.model, BaseTTAModel):
            raise ValueError(
                f'{type(self.model).__name__} averages predictions over changed images: attack '
                'the model itself, without --tta'
            )
        refuse_branches(
            self.model,
            'an attack needs that of',
            'test the plain detector, with the weights of the teacher or the student',
        )
        self.out_dir = Path(out_dir or runner.work_dir)
        self.save_predictions = flag('save_predictions', save_predictions)
        self._head = self._describe()
        earlier = of_first_process(
            read_earlier_curve(
                self.out_dir, {**self._head, **self.settings}, flag('resume', resume)
            )
        )
        self.curve: list[dict[str, Any]] = earlier.get('curve', [])
        self.flags: dict[str, Any] | None = earlier.get('flags')
        # Nothing is trained: no word about augmentations that nobody drives.
        collect(self.model)
        self._target = Target(self.model, at, side, seed, Geometry(self.dataloader.dataset))
        # Loss, images, instances found.
        self._sums = torch.zeros(3, dtype=torch.float64)
        self._won: Counter[str] = Counter()
        self._left = 0
        # Those of one attack, the plain one of an ensemble.
        self._flag_settings = dict(
            at=at,
            side=side,
            kind=attack if attack in KINDS else 'pgd',
            steps=10 if steps is None else steps,
            step_size=step_size,
            **pgd,
        )
        self._asked: dict[str, Any] = dict(
            images=flag_images if gradient else 0,
            transfer=transfer,
            transfer_config=transfer_config,
        )
        # Now, so that one that does not fit is refused before the curve.
        self._transferred: Transferred | None = None
        if transfer and self._flags_are_missing:
            of_other = Config.fromfile(transfer_config) if transfer_config else runner.cfg
            of_theirs = PGD(**self._flag_settings, eps=self._largest)
            self._transferred = Transferred(
                self.model, of_other, transfer, of_theirs, seed, self._target.geometry
            )
        self._untried: Attack | Strongest | None = None

    def run(self) -> dict:
        """The metrics of the last strength, as a test loop returns them."""
        again = of_first_process({eps for eps in self.attacks if not self._is_kept(eps)})
        done = {p['eps']: p for p in self.curve if p['eps'] not in again}
        self.curve = list(done.values())
        self._untried = next((attack for eps, attack in self.attacks.items() if eps), None)
        of_this_process = len(range(get_rank(), len(self.dataloader.dataset), get_world_size()))
        with progress_bar() as progress:
            task = progress.add_task('', total=len(self.attacks) * len(self.dataloader))
            for eps, attack in self.attacks.items():
                progress.update(task, description=f'eps {eps:g}')
                if eps in done:
                    metrics = done[eps]['metrics']
                    progress.advance(task, len(self.dataloader))
                    continue
                self._left = of_this_process
                self._sums.zero_()
                self._won.clear()
                step = partial(self._predict, attack, eps, partial(progress.advance, task))
                instead = (self.runner.model, 'test_step', lambda *_, step=step: step)
                with patched([instead]), self._kept(eps):
                    metrics = super().run()
                self._add(eps, attack, metrics)
        self._look_for_masking()
        self.runner.logger.info('%s\n%s', self.out_dir, markdown(self._result()))
        return metrics

    def _kept(self, eps: float) -> AbstractContextManager:
        """Within this context predictions are written, if they are asked for."""
        if not self.save_predictions:
            return nullcontext()
        return saving(self.evaluator, self._file(eps), **self._head, **self.settings, eps=eps)

    def _file(self, eps: float) -> Path:
        return self.out_dir / PREDICTIONS / f'eps_{eps:g}.pkl'

    def _is_kept(self, eps: float) -> bool:
        """Whether predictions of this attack are there, if they are asked for."""
        if not self.save_predictions:
            return True
        if not self._file(eps).is_file():
            return False
        theirs = read_predictions(self._file(eps)).head
        return all(theirs.get(key) == ours for key, ours in (self._head | self.settings).items())

    def _add(self, eps: float, attack: Attack | Strongest, metrics: dict[str, Any]) -> None:
        """A strength is done: what is known so far is written."""
        all_reduce(self._sums)
        loss, count, found = self._sums.tolist()
        loss /= max(count, 1)
        point = dict(eps=eps, metrics=metrics, loss=loss if math.isfinite(loss) else None)
        step_size = getattr(attack, 'step_size', None)
        point |= dict(found=int(found), step_size=step_size)
        won = sum(all_gather_object(self._won), Counter[str]())
        self.curve.append({**point, 'won': dict(won)} if won else point)
        self.curve = score(self.curve, self._head['task'])
        self._write()

    def _write(self) -> None:
        if is_main_process():
            write_curve(self._result(), self.out_dir)

    def _result(self) -> dict[str, Any]:
        more: dict[str, Any] = {} if self.flags is None else {'flags': self.flags}
        if self._fit.lacks:
            more['lacks'] = self._fit.lacks
        return {**self._head, **self.settings, **more, 'curve': self.curve}

    @torch.enable_grad()  # mmengine's loop takes no gradient.
    def _predict(
        self, attack: Attack | Strongest, eps: float, advance: Callable[[], None], data_batch: Any
    ) -> Any:
        """Predictions of a batch under attack, in the place of the model's ``test_step``."""
        clean = not eps
        data = self.model.data_preprocessor(data_batch, False)
        self._try(data)
        outputs: list[Any] = []
        left = self._left
        for rows in rows_of(data, attack.alone):
            samples = data['data_samples'][rows]
            # Behind them are images of other processes, which fill up the last batch.
            count = min(len(samples), self._left)
            self._left -= count
            with self._target.open(data['inputs'][rows], samples) as batch:
                if clean:
                    features = batch.features
                elif isinstance(attack, Strongest):
                    features, name = attack.attack(batch)
                    self._won[name] += count
                else:
                    features = batch.attack(attack)
                loss = batch.loss_of(features, attack.against)
                if not clean:
                    outputs += batch.predict(features)
            if count:
                self._sums += torch.tensor([loss * count, count, 0], dtype=torch.float64)
        if clean:
            with torch.no_grad():
                outputs = self.model(**data, mode='predict')
        self._sums[2] += count_found(outputs[: left - self._left])
        advance()
        return outputs

    def _try(self, data: Any) -> None:
        """Once: make an attack and a prediction, so that what cannot be is refused before the clean
        test has run.
        """
        attack, self._untried = self._untried, None
        if attack is None:
            return
        rows = next(iter(rows_of(data, attack.alone)))
        with self._target.open(data['inputs'][rows], data['data_samples'][rows]) as batch:
            if isinstance(attack, Strongest):
                attack.attack(batch)
            else:
                batch.predict(batch.attack(attack))

    @property
    def _largest(self) -> float:
        """Of all strengths, also of those that an earlier run has left."""
        return max([*self.attacks, *(point['eps'] for point in self.curve)])

    @property
    def _flags_are_missing(self) -> bool:
        made_with = dict(self._asked, eps=self._largest)
        asked = bool(self._asked['images'] and self._largest)
        return asked and (self.flags or {}).get('made_with') != made_with

    def _look_for_masking(self) -> None:
        """Signs of a hidden gradient, at the largest eps; those that are there are kept."""
        if not (self._asked['images'] and self._largest):
            return
        if self._flags_are_missing:
            settings = dict(self._flag_settings, eps=self._largest)
            found = look_for_masking(
                self._target, self.dataloader, settings, self._asked['images'], self._transferred
            )
            self.flags = dict(found, made_with=dict(self._asked, eps=self._largest))
            self._write()
        for name in fired(self.flags):
            self.runner.logger.warning('sign of a hidden gradient: %s', name)

    def _describe(self) -> dict[str, Any]:
        cfg = self.runner.cfg
        checkpoint = str(getattr(self.runner, '_load_from', None) or cfg.get('load_from') or '')
        return dict(
            config=str(cfg.filename or ''),
            checkpoint=checkpoint,
            task=task_of(self.model),
            made_with={
                # Of the loop's own settings those that matter stand beside; strengths may be added.
                **fingerprint(cfg, checkpoint, left_out=('test_cfg',)),
                'images': len(self.dataloader.dataset),
            },
        )
