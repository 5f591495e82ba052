# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Will this config train, and is it wise? Builds the run without training it, tries a batch, and
lists errors (what cannot work) and warnings (what may not do what you want), with cost and memory.

Exit status: 1 if there are errors, else 0, with or without warnings.

Where the data set is not there, a batch of noise is tried; where pre-trained weights are not there
and cannot be fetched, random ones. The list says so. What views do to the loss is left out then:
untrained weights say nothing about it. With pre-trained weights of the backbone alone, only the
distance of views is looked at; with load_from, all of it.
"""

import argparse
import copy
import json
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO
from urllib.error import URLError

from mmengine.config import Config
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import CheckpointLoader, Runner
from torch.utils.data import Dataset

from mmfeataug.datasets import random_batch
from mmfeataug.hooks import CheckHook, Finding, config_lines, errors
from mmfeataug.utils.configs import dicts_in, scope_of, type_name
from mmfeataug.utils.errors import root_cause
from mmfeataug.utils.results import results_on_stdout

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import (
    TRAIN,
    add_config_arguments,
    build_runner,
    first_batch,
    load_config,
    missing_data,
    only_train,
    start,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of a training')
    parser.add_argument('--fix', action='store_true', help='also print a config that mends it')
    parser.add_argument('--json', action='store_true', help='all of it as one line of JSON')
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('H', 'W'), help='noise of this size instead of data'
    )
    add_config_arguments(parser)
    return parser.parse_args(argv)


NO_IMAGES = (
    'the training set has no image: look at data_root, data_prefix and ann_file of '
    'train_dataloader.dataset, and at its filter_cfg and metainfo.classes, which leave images out'
)


@DATASETS.register_module()
class MissingData(Dataset):
    """Stands in for a data set that is not there. Longer than any schedule counts."""

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> Any:
        raise IndexError('there is no data')


def use_noise(cfg: Config, notes: list[str]) -> None:
    """Let a data set that is not there be none."""
    if 'max_iters' in cfg.train_cfg:
        for hook in cfg.get('custom_hooks') or ():
            if type_name(hook) == 'FeatureAugHook' and hook.pop('by_epoch', False):
                for key in ('begin', 'end', 'warmup'):
                    hook.pop(key, None)
                notes.append(
                    'by_epoch=True: how long an epoch is cannot be known without data, so that '
                    'begin, end and warmup are not looked at'
                )
    size = cfg.train_dataloader.get('batch_size') or 1
    cfg.train_dataloader = dict(
        batch_size=size,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='MissingData'),
    )


def known_weights(cfg: Config, notes: list[str]) -> Sequence[str]:
    """Take weights out of a config that cannot be had.

    Returns:
        Which faults of effects are worth looking for with those that are left.
    """
    found = missing = False
    for part in dicts_in(cfg.model):
        given = part.get('init_cfg') or ()
        for init in [given] if isinstance(given, dict) else given:
            if type_name(init) == 'Pretrained':
                there = _is_there(init['checkpoint'])
                found, missing = found or there, missing or not there
                if not there:
                    part['init_cfg'] = None
        given = part.get('pretrained')
        if isinstance(given, str) and not _is_there(given):
            missing, part['pretrained'] = True, None
        elif given is True:
            # Of timm, which may have to fetch them.
            missing, part['pretrained'] = True, False
    trained = bool(cfg.get('load_from')) and _is_there(cfg.load_from)
    if not trained and cfg.get('load_from'):
        missing, cfg.load_from = True, None
    if not trained:
        notes.append(
            f'{"pre-trained weights are not there" if missing else "no load_from"}: '
            + ('weights of heads are random' if found and not missing else 'weights are random')
            + ', so that what views do to the loss is left out'
        )
    return ('near', 'flat', 'wild') if trained else ('near',) if found and not missing else ()


def _is_there(checkpoint: str) -> bool:
    """Whether weights can be read, or fetched within seconds."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)
    try:
        CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    except Exception:
        return False
    finally:
        socket.setdefaulttimeout(before)
    return True


def look(given: Config, size: Sequence[int] | None, absent: str, notes: list[str]) -> CheckHook:
    """Build the run and look at it, without training.

    Args:
        given: Config, which stays as it is.
        size: Of noise to try in place of data.
        absent: Why there are no data; empty if there are.
        notes: Gets what stands in for what.

    Raises:
        FileNotFoundError: If the data cannot be read.
    """
    cfg = copy.deepcopy(given)
    if absent:
        use_noise(cfg, notes)
        notes.append(f'{absent}. The batch is noise instead, and the number of images is not known')
    elif size:
        notes.append('the batch is noise, not training data')
    noise = bool(absent or size)
    hook = CheckHook(batch_maker(size, noise), noise, known_weights(cfg, notes))
    hook.findings += strip_hooks(cfg)
    with tempfile.TemporaryDirectory() as folder:
        only_train(cfg, folder)
        try:
            runner = build_runner(cfg)
            runner.register_hook(hook)
            with suppress(CheckHook.EndError):
                runner.train()
        except Exception as error:
            cause = root_cause(error)
            unreachable = isinstance(cause, (URLError, socket.gaierror))
            if (unreachable or isinstance(cause, FileNotFoundError)) and not absent:
                raise FileNotFoundError(cause) from None
            if unreachable:
                hook.findings.append(Finding(f'something cannot be fetched: {cause}'))
                return hook
            if 'need at least one array' in str(cause):
                cause = ValueError(NO_IMAGES)
            hook.findings += errors(cause if isinstance(cause, Exception) else error)
    return hook


def strip_hooks(cfg: Config) -> list[Finding]:
    """Take settings out of a config with which FeatureAugHook cannot be built, so that the rest can
    be looked at.
    """
    found = []
    for entry in list(cfg.get('custom_hooks') or ()):
        if type_name(entry) != 'FeatureAugHook':
            continue
        try:
            # mmengine takes the priority out itself.
            HOOKS.build({key: value for key, value in entry.items() if key != 'priority'})
        except (KeyError, TypeError, ValueError) as error:
            found += errors(error)
            for key in entry.keys() - {'type', 'augmentations'}:
                del entry[key]
            if not isinstance(entry.get('augmentations', []), list):
                cfg.custom_hooks.remove(entry)
    return found


def batch_maker(size: Sequence[int] | None, is_noise: bool) -> Any:
    """What gives :class:`CheckHook` its batch."""

    def make(runner: Runner, model: Any) -> Sequence[Any]:
        loader = runner.train_dataloader
        if is_noise:
            side = 224 if scope_of(runner.cfg) == 'mmpretrain' else 256
            return random_batch(model, tuple(size or (side, side)), loader.batch_size or 2)
        return first_batch(model, loader, True)

    return make


def measured(hook: CheckHook) -> list[str]:
    """Cost and memory of views, for people to read."""
    trial = hook.trial
    if trial is None or trial.cost is None or hook.hook is None:
        return []
    average = hook.hook.schedule.cost(
        hook.iterations,
        hook.epoch,
        trial.cost,
        trial.without_views,
        trial.prob,
        hook.hook.budget,
    )
    lines = [
        f'cost: {trial.cost:.2f} stock steps for an augmented iteration (a stock step takes '
        f'{trial.seconds:.2f} s here, without the optimizer), {average:.2f} on average'
    ]
    gradients = trial.gradients / 2**20
    if trial.memory:
        stock, views = (peak / 2**30 for peak in trial.memory)
        lines += [f'memory: {views:.2f} GiB at the peak, {stock:.2f} GiB in a stock step']
    else:
        lines += [
            f'memory: at most 1.1 times that of a stock step, and {gradients:.0f} MiB for a second '
            'copy of the gradients (by design; measured on a GPU)'
        ]
    return lines


def report(findings: Sequence[Finding], notes: Sequence[str], fixes: Sequence[str]) -> str:
    """The list for people."""
    lines = []
    for kind, what in (('error', 'cannot work'), ('warning', 'may not do what you want')):
        each = [finding.message for finding in findings if finding.kind == kind]
        lines += [f'{len(each)} {kind}{"" if len(each) == 1 else "s"} ({what})']
        lines += [f'  {i}. {message}' for i, message in enumerate(each, 1)]
    lines += [f'- {note}' for note in notes]
    return '\n'.join([*lines, *(['', *fixes] if fixes else [])])


@results_on_stdout
def main(out: TextIO, argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    given = load_config(args, TRAIN, needs_data=False)
    notes: list[str] = []
    absent = missing_data(given, TRAIN[:1])
    try:
        hook = look(given, args.size, absent, notes)
    except FileNotFoundError as error:
        notes = []
        hook = look(given, args.size, 'the data cannot be read', notes)
        hook.findings.append(Finding(f'the training data cannot be read: {error}'))
    notes += measured(hook)
    lines = config_lines(given, hook.findings) if args.fix else []
    fixes = [f'_base_ = {os.path.abspath(args.config)!r}', *lines] if lines else []
    if lines and Config._is_lazy_import(args.config):
        fixes = []
        notes.append(
            '--fix: a pure-Python config cannot be the base of a printed one; change in it: '
            + '; '.join(line.replace('_base_.', '') for line in lines)
        )
    if args.fix and hook.findings and not lines:
        notes.append('--fix: none of these can be corrected by changing a value')
    if args.json:
        kinds = {
            f'{kind}s': [f.message for f in hook.findings if f.kind == kind]
            for kind in ('error', 'warning')
        }
        cost = hook.trial.cost if hook.trial else None
        print(json.dumps(dict(**kinds, notes=notes, fixes=fixes, cost=cost)), file=out)
    else:
        print(report(hook.findings, notes, fixes), file=out)
    if any(finding.kind == 'error' for finding in hook.findings):
        raise SystemExit(1)


if __name__ == '__main__':
    start(main)
