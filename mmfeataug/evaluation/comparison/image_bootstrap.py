# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Uncertainty of the difference of two runs due to the choice of test images."""

import contextlib
import copy
import io
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

from mmfeataug.utils.configs import dicts_in
from mmfeataug.utils.images import image_key

from ..corruptions.run_table import predictions_file
from ..predictions import PREDICTIONS, Predictions, read_predictions
from ..robustness import counted, less_is_better, mean
from ..scores import read_scores
from ..unfinished import CLEAN, OUTPUTS
from .compare import Comparison
from .runs import Run
from .significance import DRAWS, Difference, calls, over_images

KEYS = ('P', 'mPC', 'worst')
LIMIT = 10.0
"""Minutes for one name."""


class Resampled:
    """The test of kept predictions, on any of their images.

    Args:
        evaluator: Config of it.
        predictions: Of a whole test set.

    Raises:
        ValueError: If the evaluator does not keep one result per image, or an image has no name.
    """

    def __init__(self, evaluator: Any, predictions: Predictions) -> None:
        # Files of a draw are not those of the test.
        self._files = tempfile.TemporaryDirectory()
        given = copy.deepcopy(evaluator)
        for metric in dicts_in([given]):
            for key in (k for k in OUTPUTS if metric.get(k)):
                metric[key] = str(Path(self._files.name, key))  # type: ignore[index]
        # It asks nothing of a runner.
        self._evaluator = Runner.build_evaluator(None, given)  # type: ignore[arg-type]
        if type(self._evaluator) is not Evaluator:
            raise ValueError(
                f'{type(self._evaluator).__name__} gives each metric images by their position, so '
                'that images cannot be drawn again'
            )
        self._evaluator.dataset_meta = predictions.dataset_meta
        self.names = []
        for sample in predictions:
            self._evaluator.process([sample])
            self.names.append(image_key(sample))
        self._results = [list(metric.results) for metric in self._evaluator.metrics]
        for metric, results in zip(self._evaluator.metrics, self._results, strict=True):
            if len(results) != len(predictions):
                raise ValueError(
                    f'{type(metric).__name__} keeps {len(results)} results of '
                    f'{len(predictions)} images, so that images cannot be drawn again'
                )

    def evaluate(self, numbers: np.ndarray) -> dict[str, Any]:
        """What the evaluator returns for these images; a number may be there several times."""
        for metric, results in zip(self._evaluator.metrics, self._results, strict=True):
            chosen = [results[i] for i in numbers]
            if hasattr(metric, '_coco_api') and hasattr(metric, 'img_ids'):
                chosen = _as_copies(metric, chosen)
            metric.results[:] = chosen
        with contextlib.redirect_stdout(io.StringIO()):
            return self._evaluator.evaluate(len(numbers))


def _as_copies(metric: Any, results: list[tuple[dict, dict]]) -> list[tuple[dict, dict]]:
    """COCO's evaluator finds an image by its number: each copy of an image gets one of its own."""
    given = vars(metric).setdefault('_given_coco', metric._coco_api)
    found = [
        ({**truth, 'img_id': i}, {**predicted, 'img_id': i})
        for i, (truth, predicted) in enumerate(results)
    ]
    metric.img_ids = None
    if given is None:
        # It makes one of the truth.
        metric._coco_api = None
        return found
    data = {**given.dataset, 'images': [], 'annotations': []}
    for i, (_, predicted) in enumerate(results):
        data['images'].append({**given.imgs[predicted['img_id']], 'id': i})
        for box in given.imgToAnns[predicted['img_id']]:
            data['annotations'].append({**box, 'image_id': i, 'id': len(data['annotations']) + 1})
    metric._coco_api = type(given)()
    metric._coco_api.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):
        metric._coco_api.createIndex()
    return found


def image_differences(
    one: Comparison,
    baseline: str,
    cfg: Config,
    resamples: int | None = None,
    advance: Callable[[], object] = lambda: None,
) -> tuple[dict[str, dict[str, Difference]], list[str]]:
    """Differences of the main metric to the baseline with intervals over the test images, for names
    and a baseline with one run each and saved predictions.

    Args:
        one: Of tables.
        baseline: A name in it.
        cfg: With the test evaluator.
        resamples: How often images are drawn; None: :data:`DRAWS` times, if that takes no
            longer than :data:`LIMIT`.
        advance: Called after each draw.

    Returns:
        Differences by name and key (:data:`KEYS`), and notes on what has none.
    """
    found: dict[str, dict[str, Difference]] = {}
    notes: list[str] = []
    if len(one.runs[baseline]) > 1:
        return found, notes
    (base,) = one.runs[baseline]
    for name, runs in one.runs.items():
        folders = [run.folder / one.folder / PREDICTIONS for run in (*runs[:1], base)]
        if name == baseline or len(runs) > 1 or not all(map(Path.is_dir, folders)):
            continue
        try:
            found[name] = _difference(one, name, baseline, cfg, resamples, advance)
        except Exception as error:  # A config may ask for what is not here.
            notes.append(f'{name}: no interval over images: {type(error).__name__}: {error}')
    return found, notes


def _difference(
    one: Comparison,
    name: str,
    baseline: str,
    cfg: Config,
    resamples: int | None,
    advance: Callable[[], object],
) -> dict[str, Difference]:
    metric, pair = one.metrics[0], (one.runs[name][0], one.runs[baseline][0])
    names = counted({c: {} for c, _ in sorted(one.conditions[metric])})
    corrupted = [(c, int(s)) for c, s in sorted(one.conditions[metric]) if c in names]
    tests = [{CLEAN: _test(_file(run, one.folder, CLEAN), cfg)} for run in pair]
    own, other = (test[CLEAN].names for test in tests)
    if [Path(name).name for name in own] != [Path(name).name for name in other]:
        raise ValueError('the two were tested on other images, or in another order')
    every = np.arange(len(own))
    clean = [_figures(test, every, metric, one.task).get('P', math.nan) for test in tests]
    _refuse_other_figures(one, name, baseline, 'P', clean[0] - clean[1])
    files = [{c: _file(run, one.folder, c) for c in corrupted} for run in pair]
    start = time.monotonic()
    for test in tests:
        _figures(test, every, metric, one.task)
    once = (time.monotonic() - start) * (1 + len(corrupted))
    minutes = once * calls(len(own), resamples or DRAWS) / 60
    if resamples is None and minutes > LIMIT:
        raise ValueError(
            f'it would take about {minutes:.0f} minutes: ask for it by --resamples {DRAWS}'
        )
    for test, of_run in zip(tests, files, strict=True):
        test.update({c: _test(path, cfg) for c, path in of_run.items()})
    known: dict[bytes, dict[str, float]] = {}

    def figure(key: str, numbers: np.ndarray) -> float:
        # The same draws come again for every key.
        drawn = numbers.tobytes()
        if drawn not in known:
            mine, theirs = (_figures(test, numbers, metric, one.task) for test in tests)
            known[drawn] = {k: mine[k] - theirs[k] for k in mine if k in theirs}
            advance()
        return known[drawn].get(key, math.nan)

    keys = KEYS if corrupted else KEYS[:1]
    for key in keys:
        _refuse_other_figures(one, name, baseline, key, figure(key, every))
    return {key: over_images(partial(figure, key), len(own), resamples or DRAWS) for key in keys}


def _refuse_other_figures(
    one: Comparison, name: str, baseline: str, key: str, found: float
) -> None:
    """Predictions that do not give the figures of the tables are of something else."""
    mine, theirs = (one.values[one.metrics[0]][n][key][0] for n in (name, baseline))
    expected = None if mine is None or theirs is None else mine - theirs
    if expected is None or not math.isclose(found, expected, abs_tol=1e-6):
        raise ValueError(
            f'the kept predictions give a difference of {found:.6g} in {key}, the tables '
            f'{expected}: they are of other checkpoints, evaluators or data; make both anew by '
            'test_robustness.py --save-predictions'
        )


def _file(run: Run, folder: str, condition: tuple[str, int]) -> Path:
    path = predictions_file(run.folder / folder / PREDICTIONS, condition)
    if not path.is_file():
        raise ValueError(f'{path} is missing: --save-predictions writes it')
    return path


def _test(path: Path, cfg: Config) -> Resampled:
    return Resampled(cfg.test_evaluator, read_predictions(path))


def _figures(
    tests: Mapping[tuple[str, int], Resampled], numbers: np.ndarray, metric: str, task: str
) -> dict[str, float]:
    by_corruption: dict[str, list[float | None]] = {}
    for (name, _), test in tests.items():
        # A detector that finds nothing has 0.
        scores = read_scores(test.evaluate(numbers), {metric: 1.0}, task, found=0)
        by_corruption.setdefault(name, []).append(scores.get(metric))
    means = {name: mean(values) for name, values in by_corruption.items()}
    clean = means.pop(CLEAN[0])
    found = {'P': clean, 'mPC': mean(means.values())}
    worst = max if less_is_better(metric) else min
    found['worst'] = worst((v for v in means.values() if v is not None), default=None)
    return {key: value for key, value in found.items() if value is not None}
