# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A test loop under attack: the config's metrics over the strength of the attack."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.model import is_model_wrapper
from mmengine.runner import TestLoop

from mmfeataug._progress import progress_bar
from mmfeataug._tasks import task_of
from mmfeataug.models.wrappers import collect
from mmfeataug.registry import LOOPS
from mmfeataug.visualization.surface import draw_strengths

from .attacked_batch import Target
from .attacks import make_attack
from .base import Attack
from .ground_truth import loaded_resized
from .report import ATTACKED
from .scores import count_found, read_scores

UNIT_OF = {'statistics': 'factor', 'swap': 'share'}


@LOOPS.register_module()
class AdversarialTestLoop(TestLoop):
    """The config's test, once for each strength of an attack on its images or features.

    The attack climbs the model's training loss, with batch norms and dropout in evaluation mode;
    predictions are those of the stock model given the attacked image, or with the attacked feature
    put in at the place. Strength 0 is the stock test. ``adversarial.json``, a table
    (``.md``) and a curve of the first metric (``.png``) are written at the end.

    Args:
        runner, dataloader, evaluator: As the Runner gives them. The pipeline loads annotations.
        attack: ``'pgd'``; ``'statistics'``: AdvBN's worst channel statistics; ``'swap'``:
            statistics of other images of the batch.
        at: ``'inputs'``, or the dotted path of a module.
        side: ``'output'`` or ``'input'`` of it.
        eps: Strengths, in ``unit`` for ``'pgd'``; bounds of AdvBN's factors; shares of a swap.
        steps: None: 10, or AdvBN's 6.
        step_size: None: ``2.5 * eps / steps``, or AdvBN's 0.2.
        norm: ``'linf'`` or ``'l2'``; None: the first.
        unit: ``'pixel'`` at ``'inputs'``, ``'std'`` or ``'absolute'`` elsewhere; None: the first.
        against: Words in the names of the terms of the loss that are attacked; empty: all.
        random_start: Of PGD.
        seed: Of random starts, by image, and of what losses draw, by batch.
        out_dir: Folder of the results; None: the work directory.
        fp16: Has to be False.

    Raises:
        ValueError, TypeError: For settings that cannot be.
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
        seed: int = 0,
        out_dir: str | None = None,
        fp16: bool = False,
    ) -> None:
        if fp16:
            raise ValueError('fp16=True: attacks are made in float32; set fp16=False')
        pgd: dict[str, Any] = {}
        if attack == 'pgd':
            unit = unit or ('pixel' if at == 'inputs' else 'std')
            pgd = dict(norm=norm or 'linf', unit=unit, against=against, random_start=random_start)
        elif against or unit or norm or not random_start:
            raise ValueError(
                f'against={against!r}, unit={unit!r}, norm={norm!r}, '
                f'random_start={random_start!r}: these are settings of pgd, not of {attack!r}'
            )
        options = dict(at=at, side=side, steps=steps, step_size=step_size, **pgd)
        # Each is made here, so that wrong settings show before the data is read.
        self.attacks: dict[float, Attack] = {
            float(e): make_attack(attack, float(e), **options)  # type: ignore[arg-type]
            for e in eps
        }
        if not self.attacks:
            raise ValueError('eps=(): give at least one strength')
        super().__init__(runner, dataloader, evaluator)
        self.settings = dict(
            attack=attack,
            at=at,
            side=side,
            norm=pgd.get('norm'),
            steps=getattr(next(iter(self.attacks.values())), 'steps', 0),
            step_size=step_size if attack != 'statistics' else (step_size or 0.2),
            against=list(against),
            seed=seed,
            unit=pgd.get('unit', UNIT_OF.get(attack)),
            random_start=random_start if attack == 'pgd' else None,
        )
        self.out_dir = Path(out_dir or runner.work_dir)
        self._refuse_to_overwrite()
        model = runner.model
        self.model: Any = model.module if is_model_wrapper(model) else model
        # Nothing is trained: no word about augmentations that nobody drives.
        collect(self.model)
        resized = loaded_resized(self.dataloader.dataset)
        self._target = Target(self.model, at, side, seed, resized)
        # Loss, images, instances found.
        self._sums = torch.zeros(3, dtype=torch.float64)

    def run(self) -> dict:
        """The metrics of the last strength, as a test loop returns them."""
        self.runner.call_hook('before_test')
        curve: list[dict[str, Any]] = []
        counts = []
        with progress_bar() as progress:
            task = progress.add_task('', total=len(self.attacks) * len(self.dataloader))
            for eps, attack in self.attacks.items():
                progress.update(task, description=f'eps {eps:g}')
                self.runner.call_hook('before_test_epoch')
                self.runner.model.eval()
                self._sums.zero_()
                for idx, data_batch in enumerate(self.dataloader):
                    self.run_iter(idx, data_batch, attack, clean=not eps)
                    progress.advance(task)
                metrics = self.evaluator.evaluate(len(self.dataloader.dataset))
                self.runner.call_hook('after_test_epoch', metrics=metrics)
                all_reduce(self._sums)
                loss, count, found = self._sums.tolist()
                point = dict(eps=eps, metrics=metrics, loss=loss / max(count, 1))
                curve.append({**point, 'step_size': getattr(attack, 'step_size', None)})
                counts.append(int(found))
        self.runner.call_hook('after_test')
        _read(curve, counts, task_of(self.model))
        if is_main_process():
            self._write(curve)
        return metrics

    def run_iter(self, idx: int, data_batch: Any, attack: Attack, clean: bool) -> None:  # type: ignore[override]
        """One batch.

        Args:
            idx: Of the batch.
            data_batch: As the data loader gives it.
            attack: What is done to it.
            clean: Do nothing: the stock test.
        """
        self.runner.call_hook('before_test_iter', batch_idx=idx, data_batch=data_batch)
        data = self.model.data_preprocessor(data_batch, False)
        inputs, samples = data['inputs'], data['data_samples']
        with self._target.open(inputs, samples) as batch:
            features = batch.features if clean else batch.attack(attack)
            loss = batch.loss_at(features, attack)
            if not clean:
                outputs = batch.predict(features)
        if clean:
            with torch.no_grad():
                outputs = self.model(**data, mode='predict')
        sums = loss * len(samples), len(samples), count_found(outputs)
        self._sums += torch.tensor(sums, dtype=torch.float64)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(
            'after_test_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs
        )

    @property
    def _checkpoint(self) -> str:
        cfg = self.runner.cfg
        return str(getattr(self.runner, '_load_from', None) or cfg.get('load_from') or '')

    def _refuse_to_overwrite(self) -> None:
        """Another attack's result is not to be lost, nor another checkpoint's."""
        path = self.out_dir / ATTACKED
        try:
            old = json.loads(path.read_text())
        except (OSError, ValueError):
            return
        new = {**self.settings, 'checkpoint': self._checkpoint}
        other = [key for key, value in new.items() if old.get(key) != value]
        if other:
            raise ValueError(
                f'{path} is the result of another attack or checkpoint ({", ".join(other)}): give '
                'this one an out_dir (--out-dir) of its own, or delete the file'
            )

    def _write(self, curve: list[dict[str, Any]]) -> None:
        cfg = self.runner.cfg
        head = dict(
            config=str(cfg.filename or ''), checkpoint=self._checkpoint, task=task_of(self.model)
        )
        result = {**head, **self.settings, 'curve': curve}
        self.out_dir.mkdir(parents=True, exist_ok=True)
        path = self.out_dir / 'adversarial.png'
        (self.out_dir / ATTACKED).write_text(json.dumps(result, indent=2) + '\n')
        table = markdown(result)
        (self.out_dir / 'adversarial.md').write_text(table)
        metric = next(iter(curve[0]['metrics']), None)
        if metric is not None:
            points = [p for p in curve if p['metrics'].get(metric) is not None]
            line = [p['eps'] for p in points], [p['metrics'][metric] for p in points]
            label = f'eps ({_unit(result)}) of {result["attack"]} at {result["at"]}'
            draw_strengths({Path(head['config']).stem: line}, path, label, metric)
        self.runner.logger.info('%s\n%s', self.out_dir / ATTACKED, table)


def _read(curve: list[dict[str, Any]], found: Sequence[int], task: str) -> None:
    """Put scores in the place of what the evaluator returned; all points have the same ones."""
    known: dict[str, float | None] = {}
    for point in curve:
        scores = read_scores(point['metrics'], None, task, 0)
        known |= {k: v for k, v in scores.items() if v is not None or k not in known}
    for point, count in zip(curve, found, strict=True):
        scores = read_scores(point['metrics'], known, task, count)
        point['metrics'] = {name: scores.get(name) for name in known}


def markdown(result: dict[str, Any]) -> str:
    """A table of one row a strength.

    Args:
        result: As ``adversarial.json`` holds it.
    """
    names = list(result['curve'][0]['metrics'])
    lines = [
        f'{result["attack"]} at `{result["at"]}`, {result["steps"]} steps, seed {result["seed"]}',
        '',
        f'| eps ({_unit(result)}) | {" | ".join(names)} | attacked loss |',
        '|---' * (len(names) + 2) + '|',
    ]
    for point in result['curve']:
        values = [point['metrics'].get(name) for name in names]
        cells = ['-' if value is None else f'{value:.4g}' for value in (*values, point['loss'])]
        cells.insert(0, f'{point["eps"]:g}')
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def _unit(result: dict[str, Any]) -> str:
    return ', '.join(filter(None, (result['unit'], result['norm'])))
