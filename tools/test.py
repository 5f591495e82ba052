# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Evaluate a checkpoint: mAP, mIoU or accuracy, as the config's evaluator says."""

import argparse
import os.path as osp

from common import (
    TEST,
    add_aux_bn_argument,
    add_common_arguments,
    build_runner,
    check_corruptions,
    check_files,
    load_config,
    start,
)
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook

from mmfeataug.datasets import corrupt_images
from mmfeataug.evaluation import CheckpointCheck
from mmfeataug.utils.configs import data_sets, scope_of, type_name

MANY = ('AdversarialTestLoop', 'CorruptionTestLoop')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file; stock ones and ours are alike')
    parser.add_argument('--out', metavar='PKL', help='dump predictions to this pickle file')
    parser.add_argument('--show', action='store_true', help='show predictions in windows')
    parser.add_argument(
        '--show-dir',
        help='write predictions, painted on the files, to this folder below the work directory',
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds to show each, with --show'
    )
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation, if the config has tta_model'
    )
    parser.add_argument(
        '--corruption',
        nargs=2,
        metavar=('NAME', 'SEVERITY'),
        help='corrupt images, such as: gaussian_noise 3',
    )
    add_aux_bn_argument(parser)
    add_common_arguments(parser)
    args = parser.parse_args()
    if args.corruption:
        (args.corruption,) = check_corruptions(parser, [args.corruption])
    return args


class DumpHook(Hook):
    """Writes predictions to a file, whatever kind of evaluator the config has."""

    priority = 'LOWEST'

    def __init__(self, path: str) -> None:
        self.results = DumpResults(path)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.results.process(data_batch, [output.to_dict() for output in outputs])

    def after_test_epoch(self, runner, metrics=None) -> None:
        self.results.evaluate(len(runner.test_dataloader.dataset))


def main() -> None:
    args = parse_args()
    check_files(args.checkpoint)
    cfg = load_config(args, TEST)
    cfg.load_from, cfg.resume = args.checkpoint, False
    # The Runner would write this config over the one beside the checkpoints.
    cfg.work_dir = osp.join(cfg.work_dir, 'test')
    if args.show or args.show_dir:
        hook = (cfg.get('default_hooks') or {}).get('visualization')
        if not hook:
            raise SystemExit('--show: the config has no default_hooks.visualization; add one')
        kind = type_name(hook)
        # mmdet's hook and mmpretrain's draw where they are told, mmseg's where the visualizer does.
        of_both = kind.endswith(('DetVisualizationHook', 'SegVisualizationHook'))
        hook['draw' if of_both else 'enable'] = True
        hook.interval = 1
        if args.show:
            hook.show, hook.wait_time = True, args.wait_time
        if args.show_dir:
            if 'Det' in kind:
                hook.test_out_dir = args.show_dir
            elif 'Seg' in kind:
                cfg.visualizer.save_dir = osp.join(cfg.work_dir, args.show_dir)
            else:
                hook.out_dir = osp.join(cfg.work_dir, args.show_dir)
    if args.tta:
        if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
            raise SystemExit(f'--tta: {args.config} has no tta_model and tta_pipeline')
        for dataset in data_sets(cfg.test_dataloader.dataset).values():
            dataset.pipeline = cfg.tta_pipeline
        cfg.model = dict(**cfg.tta_model, module=cfg.model)
    if (args.corruption or args.out) and type_name(cfg.test_cfg) in MANY:
        raise SystemExit(
            '--corruption, --out: the config asks for many tests (test_cfg); '
            'choose them there, and keep predictions by save_predictions=True'
        )
    if args.corruption:
        corrupt_images(cfg.test_dataloader, scope_of(cfg), *args.corruption)
    runner = build_runner(cfg)
    if type_name(cfg.test_cfg) not in MANY:
        runner.register_hook(CheckpointCheck())
    if args.out:
        runner.register_hook(DumpHook(args.out))
    runner.test()


if __name__ == '__main__':
    start(main)
