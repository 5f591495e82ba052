# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What the command-line tools share."""

import argparse
import copy
import gc
import os
import os.path as osp
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch.distributed
from mmengine.config import Config, DictAction
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, RUNNERS, init_default_scope
from mmengine.runner import Runner

import mmfeataug.registry  # first: mmengine and mmpretrain rely on what it declares
from mmfeataug.datasets import corrupt_images
from mmfeataug.utils.configs import data_sets, scope_of, set_workers, type_name
from mmfeataug.utils.corruptions import ALL
from mmfeataug.utils.environment import missing_operators
from mmfeataug.utils.errors import root_cause


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """``--cfg-options``, as OpenMMLab's own tools have it."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help="override settings: key=value, key='[a,b]', nested.key=value",
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that OpenMMLab's own tools have too, under the same names; of tools with a Runner."""
    add_config_arguments(parser)
    parser.add_argument(
        '--work-dir',
        help='where logs and checkpoints go; work_dirs/<config name> by default, results of tests '
        'in a folder below it',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes it; torchrun sets the environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_aux_bn_argument(parser: argparse.ArgumentParser) -> None:
    """The choice of batch norms, of tools that test a checkpoint."""
    parser.add_argument(
        '--aux-bn',
        action='store_true',
        help="use the second batch norms of a model trained with bn='separate'",
    )


def add_corruption_argument(parser: argparse.ArgumentParser, help: str) -> None:
    """``--corruption NAME SEVERITY``, which may be repeated; :func:`check_corruptions` reads it."""
    parser.add_argument(
        '--corruption', nargs=2, action='append', metavar=('NAME', 'SEVERITY'), help=help
    )


def check_corruptions(
    parser: argparse.ArgumentParser, pairs: Iterable[tuple[str, str]]
) -> list[tuple[str, int]]:
    """Names and severities of ``--corruption``; the parser refuses those that are none."""
    checked = []
    for name, severity in pairs:
        if name not in ALL or severity not in tuple('12345'):
            parser.error(
                f'--corruption {name} {severity}: give one of {", ".join(ALL)}, and a severity of '
                '1 to 5'
            )
        checked.append((name, int(severity)))
    return checked


def check_files(*paths: str | None) -> None:
    """Say which file is missing, of those that are given, before anything is built.

    Raises:
        SystemExit: If a path is no file, and no address.
    """
    for path in filter(None, paths):
        if '://' not in path and not osp.isfile(path):
            raise SystemExit(f'{path!r} is no file')


TRAIN = ('train_dataloader', 'train_cfg', 'optim_wrapper')
TEST = ('test_dataloader', 'test_evaluator', 'test_cfg')
"""What a config must have for training, and for a test; the data first."""


def read_config(path: str) -> Config:
    """The config in a file.

    Raises:
        SystemExit: If two of its bases have the same setting, such as a block and a baseline with
            hooks.
    """
    try:
        return Config.fromfile(path)
    except KeyError as error:
        if 'Duplicate key' not in str(error):
            raise
        raise SystemExit(
            f'{path}: {error.args[0]}. If both have custom_hooks, let the baseline be the only '
            "base and write custom_hooks = [*_base_.custom_hooks, dict(type='mmfeataug."
            "FeatureAugHook', augmentations=[...])]"
        ) from None


def load_config(
    args: argparse.Namespace,
    needed: Sequence[str],
    also: Sequence[str] = (),
    needs_data: bool = True,
) -> Config:
    """The config with the options of :func:`add_common_arguments` (or
    :func:`add_config_arguments`) and :func:`add_aux_bn_argument` applied, its data checked.

    Args:
        args: Of the command line.
        needed: Settings that must be there, data loaders among them.
        also: Data loaders that may be.
        needs_data: Whether their folders have to be there.

    Raises:
        SystemExit: If a setting or the folder of a data set is missing.
    """
    options = dict(local_rank=0, launcher='none', work_dir=None) | vars(args)
    os.environ.setdefault('LOCAL_RANK', str(options['local_rank']))
    cfg = read_config(args.config)
    cfg.launcher = options['launcher']
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if options['work_dir']:
        cfg.work_dir = options['work_dir']
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    if missing := [name for name in needed if cfg.get(name) is None]:
        raise SystemExit(
            f'{args.config} has no {", ".join(missing)}, which {osp.basename(sys.argv[0])} needs: '
            'add what is missing, or take a config that inherits a data set'
        )
    loaders = [name for name in (*needed, *also) if name.endswith('dataloader')]
    for name in loaders:
        if cfg.get(name) and not cfg[name].get('num_workers'):
            set_workers(cfg[name])
    if getattr(args, 'aux_bn', False):
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='mmfeataug.AuxiliaryBNHook')]
    if fault := missing_operators(scope_of(cfg)):
        raise SystemExit(fault)
    if needs_data:
        check_data(cfg, loaders)
    if cfg.launcher == 'pytorch' and not torch.cuda.is_available():
        _use_cpu_processes(cfg)
    return cfg


def _use_cpu_processes(cfg: Config) -> None:
    """mmengine takes for granted that processes have a GPU each."""
    torch.distributed.init_process_group('gloo')
    cfg.setdefault(
        'model_wrapper_cfg',
        dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        ),
    )


def build_model(cfg: Config) -> torch.nn.Module:
    """The model as a Runner builds it, in training mode and for one process."""
    init_default_scope(scope_of(cfg) or 'mmengine')
    if cfg.get('data_preprocessor'):
        # Where configs of mmpretrain have it.
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return revert_sync_batchnorm(MODELS.build(cfg.model)).train()


def build_runner(cfg: Config) -> Runner:
    """The runner that a config asks for."""
    return Runner.from_cfg(cfg) if 'runner_type' not in cfg else RUNNERS.build(cfg)


def first_batch(model: torch.nn.Module, loader: Iterable[Any], training: bool) -> tuple[Any, Any]:
    """Inputs and samples of the first batch of a data loader, preprocessed for a model."""
    data = model.data_preprocessor(next(iter(loader)), training)
    return data['inputs'], data['data_samples']


def under_conditions(cfg: Config, corruptions: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """The test data loader of a config, with clean and with corrupted images."""
    found = {'clean': cfg.test_dataloader}
    for name, severity in corruptions:
        loader = found[f'{name} {severity}'] = copy.deepcopy(cfg.test_dataloader)
        corrupt_images(loader, scope_of(cfg), name, severity)
    return found


def only_train(cfg: Config, folder: str) -> None:
    """Leave of a config what trains: nothing is validated, drawn or kept, logs go to a folder."""
    set_workers(cfg.train_dataloader)
    cfg.param_scheduler = None
    for name in ('val', 'test'):
        cfg[f'{name}_cfg'] = cfg[f'{name}_dataloader'] = cfg[f'{name}_evaluator'] = None
    hooks = cfg.setdefault('default_hooks', {})
    hooks['checkpoint'] = None
    hooks.pop('visualization', None)
    cfg.visualizer = None
    cfg.work_dir, cfg.log_level, cfg.resume = folder, 'WARNING', False
    # Runs of one name, which has their second, share a visualizer and its folder.
    cfg.experiment_name = osp.basename(folder)


def start(main: Callable[[], None]) -> None:
    """Call a tool's ``main``. What this package refuses ends it with the sentence that says why,
    and no traceback; faults of other code keep theirs.
    """
    try:
        main()
    except Exception as error:
        first = root_cause(error)
        frame = traceback.extract_tb(first.__traceback__)[-1]
        ours = Path(frame.filename).is_relative_to(Path(mmfeataug.__file__).parent)
        if not (ours and (frame.line or '').startswith('raise')):
            raise
        # A KeyError's text is a repr.
        said = first.args[0] if isinstance(first, KeyError) and first.args else first
        raise SystemExit(str(said)) from error
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Threads of a group that is left race with the end of the interpreter, which may abort. The
        # model's wrapper holds the group, too.
        torch.distributed.destroy_process_group()
        gc.collect()


# mmpretrain fetches them into a new folder.
_DOWNLOADED = ('CIFAR10', 'CIFAR100', 'FashionMNIST', 'MNIST')


def check_data(cfg: Config, loaders: Sequence[str]) -> None:
    """Say which folder is missing before models are built.

    Raises:
        SystemExit: If a data set's root does not exist.
    """
    if fault := missing_data(cfg, loaders):
        raise SystemExit(fault)


def missing_data(cfg: Config, loaders: Sequence[str]) -> str:
    """Which data set's root does not exist, and what to do; empty if all are there."""
    for name in loaders:
        loader = cfg.get(name) or {}
        for path, dataset in data_sets(loader.get('dataset'), f'{name}.dataset').items():
            root = None if type_name(dataset) in _DOWNLOADED else dataset.get('data_root')
            if root and '://' not in root and not osp.isdir(root):
                evaluator = cfg.get(name.replace('dataloader', 'evaluator'))
                also = '' if root not in str(evaluator) else ', and the evaluator to its files'
                return (
                    f'{name}: data_root={root!r} is no folder. Put the data there (layout of known '
                    'data sets: "Data" in configs/README.md of mmfeataug), or point to it: '
                    f'--cfg-options {path}.data_root=PATH{also}'
                )
    return ''
