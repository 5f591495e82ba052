# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Run what a study of grid.py lacks: train, test on clean and corrupted images, keep the figures of
each run as one JSON in results/. What is complete is not run again; a training that was killed goes
on at its last checkpoint. ``python -m benchmarks.comparison.run``, from the repository's root.
"""

import argparse
import copy
import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.utils import get_git_hash

import mmfeataug.registry  # noqa: F401  (what mmdet and mmpretrain rely on)
from mmfeataug.evaluation import trained_on
from mmfeataug.utils.files import write_at_once

from .grid import ARMS, STUDIES, TESTBEDS, Arm

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / 'tools'))
RESULTS, COSTS = HERE / 'results', HERE / 'costs.json'
WORK = ROOT / 'work_dirs' / 'comparison'
CACHE = WORK / 'corrupted'
WEIGHTS = ROOT / 'work_dirs' / 'enet-lite0.pth'
CORRUPTIONS = ('benchmark', 'unseen')
SEVERITY = 3
PACKAGES = (
    'torch', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'mmpretrain', 'timm', 'kornia',
    'imagecorruptions-imaug', 'opencv-python-headless', 'opencv-python', 'numpy',
)  # fmt: skip


def specification(bed: str, name: str, seed: int, part: str) -> dict[str, Any]:
    """All that a run depends on, beside the files of its test bed."""
    settings = json.loads(json.dumps(asdict(ARMS[name])))
    return dict(testbed=bed, arm=name, seed=seed, part=part, settings=settings)


def placed(augmentation: dict[str, Any], bed: str) -> dict[str, Any]:
    """An augmentation at the places that its test bed has."""
    found, given = TESTBEDS[bed], dict(augmentation)
    if 'distortions' in given:
        # JSON has no tuples, and kornia of PyTorch 2.1 takes no lists for ranges.
        given['distortions'] = [
            {key: tuple(v) if isinstance(v, list) else v for key, v in one.items()}
            for one in given['distortions']
        ]
    at = given.get('at')
    if at in ('logits', 'classifier'):
        return {**given, **getattr(found, at)}
    if at is not None:
        names = [at] if isinstance(at, str) else at
        paths = [getattr(found, name, name) for name in names]
        given['at'] = paths[0] if isinstance(at, str) else paths
    return given


@lru_cache
def testbed_config(bed: str) -> Config:
    """The baseline of a test bed."""
    return Config.fromfile(HERE / 'testbeds' / f'{bed}.py')


def config_of(spec: dict[str, Any]) -> Config:
    """The whole config of a run."""
    bed, arm = spec['testbed'], Arm(**spec['settings'])
    cfg = copy.deepcopy(testbed_config(bed))
    cfg.merge_from_dict(arm.options)
    cfg.randomness = dict(seed=spec['seed'])
    faster = dict(type='benchmarks.comparison.memory.ChannelsLastHook')
    cfg.custom_hooks = [*arm.hooks, dict(type='mmfeataug.IterationSeedHook'), faster]
    if arm.augmentations or arm.hook:
        augmentations = [placed(a, bed) for a in arm.augmentations]
        hook = dict(type='mmfeataug.FeatureAugHook', augmentations=augmentations, **arm.hook)
        cfg.custom_hooks.append(hook)
    steps = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset.pipeline = [*steps[:-1], *arm.pipeline, steps[-1]]
    unit = 'max_iters' if 'max_iters' in cfg.train_cfg else 'max_epochs'
    short = cfg.train_cfg[unit]
    cfg.train_cfg[unit] = last = round(short * arm.length)
    for one in cfg.param_scheduler:
        for name in ('end', 'T_max'):
            if one.get(name) == short:
                one[name] = last
    for name in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg[name] = None
    cfg.env_cfg.cudnn_benchmark = False
    cfg.default_hooks.checkpoint.interval = math.ceil(last / 4)
    cfg.test_dataloader.dataset.indices = list(range(*getattr(TESTBEDS[bed], spec['part'])))
    return cfg


def versions() -> dict[str, str]:
    """Of what a figure may depend on."""
    found = {'python': sys.version.split()[0]}
    for name in PACKAGES:
        onedl = {'mmdet': 'mmdetection'}.get(name, name)
        for package in (f'onedl-{onedl}', name):
            try:
                found[name] = version(package)
                break
            except PackageNotFoundError:
                continue
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU, 1 thread'
    return found | {'device': device}


def train(cfg: Config, folder: Path) -> Path:
    """Train what is left to train; the last checkpoint."""
    from common import build_runner
    from mmengine.runner import find_latest_checkpoint

    folder.mkdir(parents=True, exist_ok=True)
    cfg.work_dir, cfg.resume = str(folder), find_latest_checkpoint(str(folder)) is not None
    build_runner(cfg).train()
    return Path(find_latest_checkpoint(str(folder)))


def last_lines(folder: Path) -> list[str]:
    """Three of the log of the training, without times."""
    log = max(folder.glob('*/*.log'), key=lambda path: path.stat().st_mtime)
    lines = [line for line in log.read_text().splitlines() if '(train)' in line]
    return [line.partition('INFO - ')[2] for line in lines[-3:]]


def run(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train and test; the figures."""
    import test_robustness

    begun = time.time()
    cfg = config_of(spec)
    checkpoint = train(cfg.copy(), folder / 'train')
    config = folder / 'config.py'
    cfg.dump(config)
    words = ['--cache', CACHE, '--severities', SEVERITY, '--out-dir', folder, '--workers', 0]
    words += ['--resume', '--corruptions', *CORRUPTIONS]
    test_robustness.main([str(word) for word in (config, checkpoint, *words)])
    table = json.loads((folder / 'robustness.json').read_text())
    metric = TESTBEDS[spec['testbed']].metric
    shown = table['summary'][metric]
    figures = dict(
        metric=metric,
        clean=table['clean'][metric],
        mPC=shown['mPC'],
        unseen=shown['families']['unseen'],
        worst=shown['worst']['value'],
        families=shown['families'],
        corrupted={c: one[str(SEVERITY)][metric] for c, one in table['corrupted'].items()},
    )
    return spec | dict(
        figures=figures,
        trained_on=sorted(trained_on(cfg)),
        versions=versions(),
        commit=get_git_hash(),
        minutes=round((time.time() - begun) / 60, 1),
        log=last_lines(folder / 'train'),
    )


def result_of(spec: dict[str, Any]) -> Path:
    """Where the figures of a run are kept."""
    return RESULTS / spec['part'] / spec['testbed'] / f'{spec["arm"]}-{spec["seed"]}.json'


def one(path: str) -> None:
    """A process of its own: run one specification, keep the figures, forget the checkpoint."""
    spec = json.loads(Path(path).read_text())
    del spec['config']
    folder = Path(path).parent
    target = Path(spec.pop('out', None) or result_of(spec))
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = (folder / 'lock').open('w')
    # A command that was killed may have left this run behind, still at work.
    fcntl.flock(lock, fcntl.LOCK_EX)
    if target.exists():
        return
    found = run(spec, folder)
    write_at_once(target, json.dumps(found, indent=1) + '\n')
    # A later run of the same would take tables and checkpoints for its own.
    shutil.rmtree(folder / 'train')
    for table in folder.glob('robustness.*'):
        table.unlink()


def described(spec: dict[str, Any]) -> dict[str, Any]:
    """A specification and the config that follows from it."""
    return spec | dict(config=json.loads(json.dumps(config_of(spec).to_dict(), default=str)))


def start_one(spec: dict[str, Any], folder: Path) -> subprocess.Popen:
    """Start :func:`one`; its log lies in the folder."""
    path, text = folder / 'spec.json', json.dumps(described(spec), indent=1)
    if path.exists() and path.read_text() != text:
        # Begun with other settings, or with another state of the test bed.
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    paths = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': paths}
    with (folder / 'run.log').open('a') as log:
        command = [sys.executable, '-m', 'benchmarks.comparison.run', '--one', str(path)]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def run_all(specs: Sequence[dict[str, Any]], jobs: int) -> int:
    """Run what has no result yet, so many at a time.

    Returns:
        How many failed.
    """
    from mmfeataug.utils.progress import progress_bar

    waiting = [spec for spec in specs if not result_of(spec).exists()]
    running: list[tuple[subprocess.Popen, dict]] = []
    failed = 0
    try:
        with progress_bar() as progress:
            bar = progress.add_task('runs', total=len(waiting))
            while waiting or running:
                while waiting and len(running) < jobs:
                    spec = waiting.pop(0)
                    if result_of(spec).exists():
                        progress.advance(bar)
                        continue
                    name = f'{spec["part"]}/{spec["testbed"]}/{spec["arm"]}-{spec["seed"]}'
                    running.append((start_one(spec, WORK / name), spec))
                time.sleep(0.5)
                for process, spec in [r for r in running if r[0].poll() is not None]:
                    running.remove((process, spec))
                    progress.advance(bar)
                    if process.returncode:
                        failed += 1
                        print(f'{spec["testbed"]} {spec["arm"]} {spec["seed"]} failed', flush=True)
    finally:
        for process, _ in running:
            process.terminate()
    return failed


def measure(specs: Sequence[dict[str, Any]], rounds: int) -> None:
    """Write costs in stock steps of the arms that have none to costs.json. What augments is
    measured on this machine, in one process with its stock step; what changes pipeline or length
    alone costs its length. Of other models and hooks nothing is known.
    """
    costs = json.loads(COSTS.read_text()) if COSTS.exists() else {}
    for bed, name in dict.fromkeys((spec['testbed'], spec['arm']) for spec in specs):
        arm = ARMS[name]
        augments = bool(arm.augmentations or arm.hook)
        if name in costs.get(bed, {}) or ((arm.hooks or arm.options) and not augments):
            continue
        spec = specification(bed, name, 0, 'test')
        stock_steps = 1.0
        if augments:
            folder = WORK / 'cost' / bed / name
            folder.mkdir(parents=True, exist_ok=True)
            config_of(spec).dump(folder / 'config.py')
            tool = ROOT / 'tools' / 'analysis_tools' / 'measure_cost.py'
            words = [str(folder / 'config.py'), '--work-dir', str(folder), '--rounds', str(rounds)]
            subprocess.run([sys.executable, tool, *words], cwd=ROOT, check=True)
            stock_steps = json.loads((folder / 'cost.json').read_text())['stock_steps']
        costs.setdefault(bed, {})[name] = round(stock_steps * arm.length, 3)
        write_at_once(COSTS, json.dumps(costs, indent=1, sort_keys=True) + '\n')


def repeat(path: str) -> None:
    """Run a result again from its JSON alone, and compare."""
    kept = json.loads(Path(path).read_text())
    keys = ('testbed', 'arm', 'seed', 'part', 'settings')
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, 'again.json')
        spec = {key: kept[key] for key in keys} | {'out': str(out)}
        if start_one(spec, Path(folder)).wait():
            raise SystemExit(Path(folder, 'run.log').read_text()[-2000:])
        again = json.loads(out.read_text())
    other = {
        name: (kept['versions'].get(name), found)
        for name, found in again['versions'].items()
        if found != kept['versions'].get(name)
    }
    if other:
        print(f'other versions, of which the same to the bit cannot be expected: {other}')
    same = again['figures'] == kept['figures']
    print('the same figures to the bit' if same else f'other figures: {again["figures"]}')
    raise SystemExit(not same)


def need_weights() -> None:
    """Write the ImageNet weights that test beds start from, if they are missing."""
    if not WEIGHTS.exists():
        from model_converters.efficientnet_lite0 import write_weights

        write_weights(WEIGHTS)


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('studies', nargs='*', default=['final'], help=', '.join(STUDIES))
    parser.add_argument('--testbeds', nargs='+', choices=TESTBEDS, default=list(TESTBEDS))
    parser.add_argument('--arms', nargs='+', help='of the study; all by default')
    parser.add_argument('--seeds', nargs='+', type=int, help='of the study; all by default')
    parser.add_argument('--jobs', type=int, default=2, help='trainings side by side')
    parser.add_argument('--costs', action='store_true', help='measure costs; trains nothing')
    parser.add_argument('--rounds', type=int, default=5, help='steps with views to time')
    parser.add_argument('--repeat', metavar='JSON', help='run one result again, and compare')
    parser.add_argument('--one', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return one(args.one)
    if unknown := [study for study in args.studies if study not in STUDIES]:
        parser.error(f'{unknown[0]} is no study: choose of {", ".join(STUDIES)}')
    need_weights()
    if args.repeat:
        return repeat(args.repeat)
    specs = [
        specification(bed, arm, seed, STUDIES[study].part)
        for study in args.studies
        for bed, arm, seed in STUDIES[study].runs()
        if bed in args.testbeds
        and (args.arms is None or arm in args.arms)
        and (args.seeds is None or seed in args.seeds)
    ]
    if not specs:
        parser.error(
            f'nothing in {", ".join(args.studies)} has these testbeds, arms and seeds: STUDIES in '
            'grid.py says what each study has'
        )
    if args.costs:
        return measure(specs, args.rounds)
    if failed := run_all(specs, args.jobs):
        raise SystemExit(f'{failed} runs failed; their logs are {WORK}/*/*/*/run.log')
    return None


if __name__ == '__main__':
    main()
