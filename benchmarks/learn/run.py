# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Who should learn from a view: a pre-trained detector on BCCD without views, with views that teach
the tail, and with views that teach the network; clean and under fifteen corruptions.

Needs the extra ``pretrained``, and BCCD in data/bccd. Runs that are complete are not run again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONFIG = HERE / 'faster-rcnn_enet-lite0_fpn_8e_bccd.py'
WORK = ROOT / 'work_dirs' / 'learn'
METRIC, FAMILIES = 'pascal_voc/mAP', ('noise', 'blur', 'weather', 'digital')
VIEW = dict(
    type='mmfeataug.AFAN',
    at='backbone.timm_model.blocks.2',
    unit='std',
    gamma=0.25,
    weight=0.5,
)
ARMS = {
    'baseline': None,
    'tail': dict(VIEW, learn='tail'),
    'network': dict(VIEW, learn='network'),
}


def write_config(arm: str, seed: int) -> Path:
    """What is trained, in full."""
    from mmengine.config import Config

    cfg = Config.fromfile(CONFIG)
    cfg.randomness = dict(seed=seed)
    if ARMS[arm] is not None:
        hook = dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5, augmentations=[ARMS[arm]])
        cfg.custom_hooks = [hook]
    path = WORK / f'{arm}-{seed}' / 'config.py'
    path.parent.mkdir(parents=True, exist_ok=True)
    cfg.dump(path)
    return path


def run(arm: str, seed: int) -> None:
    """Train and test one run, or what is missing of it; keep its figures."""
    config = write_config(arm, seed)
    folder = config.parent
    last = folder / 'epoch_8.pth'
    tool = [sys.executable, str(ROOT / 'tools' / 'train.py')]
    log = (folder / 'run.log').open('a')
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    call = dict(cwd=ROOT, env=environment, stdout=log, stderr=log, check=True)
    if not last.exists():
        subprocess.run([*tool, str(config), '--work-dir', str(folder), '--resume'], **call)
    tool[-1] = str(ROOT / 'tools' / 'test_robustness.py')
    out = ['--severities', '3', '--out-dir', str(folder), '--resume']
    subprocess.run([*tool, str(config), str(last), '--work-dir', str(folder), *out], **call)
    table = json.loads((folder / 'robustness.json').read_text())
    # What is the same on every machine.
    table = {k: table[k] for k in ('task', 'clean', 'corrupted', 'summary', 'notes')}
    table |= {'arm': arm, 'seed': seed, 'augmentation': ARMS[arm]}
    (HERE / f'{arm}-{seed}.json').write_text(json.dumps(table, indent=1) + '\n')


def table() -> str:
    """Markdown of all runs there are: mAP50 clean, mPC, and the means of its families."""
    lines = ['| seed | arm | clean | mPC | ' + ' | '.join(FAMILIES) + ' |', '|---' * 8 + '|']
    for path in sorted(
        HERE.glob('*-*.json'), key=lambda p: (p.stem[-1], list(ARMS).index(p.stem[:-2]))
    ):
        found = json.loads(path.read_text())
        figures = found['summary'][METRIC]
        row = [found['clean'][METRIC], figures['mPC'], *(figures['families'][f] for f in FAMILIES)]
        cells = ' | '.join(f'{100 * value:.1f}' for value in row)
        lines.append(f'| {found["seed"]} | {found["arm"]} | {cells} |')
    return '\n'.join(lines)


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS))
    parser.add_argument('--seeds', nargs='*', type=int, default=[0, 1], help='none: the table')
    args = parser.parse_args()
    weights = ROOT / 'work_dirs' / 'enet-lite0.pth'
    if args.seeds and not weights.exists():
        tool = ROOT / 'tools' / 'model_converters' / 'efficientnet_lite0.py'
        subprocess.run([sys.executable, str(tool), str(weights)], check=True)
    for seed in args.seeds:
        for arm in args.arms:
            print(arm, seed, flush=True)
            run(arm, seed)
    print(table())


if __name__ == '__main__':
    main()
