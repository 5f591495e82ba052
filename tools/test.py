# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Evaluate a checkpoint: mAP, mIoU or accuracy, as the config's evaluator says."""

import argparse
import os.path as osp

from common import (
    add_aux_bn_argument,
    add_common_arguments,
    close_processes,
    corrupt_images,
    load_config,
)
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmfeataug.utils.configs import scope_of, type_name


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
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args, ('test_dataloader',))
    cfg.load_from = args.checkpoint
    if not args.work_dir:
        # The Runner would write this config over the one beside the checkpoints.
        cfg.work_dir = osp.join(cfg.work_dir, 'test')
    if args.show or args.show_dir:
        hook = (cfg.get('default_hooks') or {}).get('visualization')
        if not hook:
            raise SystemExit('--show: the config has no default_hooks.visualization; add one')
        kind = type_name(hook)
        # mmdet's hook and mmpretrain's draw where they are told, mmseg's where the visualizer does.
        if kind.endswith(('DetVisualizationHook', 'SegVisualizationHook')):
            hook.draw, hook.interval = True, 1
        else:
            hook.enable, hook.interval = True, 1
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
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = dict(**cfg.tta_model, module=cfg.model)
    if args.corruption:
        name, severity = args.corruption
        corrupt_images(cfg.test_dataloader, scope_of(cfg), name, int(severity))
    if args.out:
        evaluator = cfg.test_evaluator
        cfg.test_evaluator = [*(evaluator if isinstance(evaluator, list) else [evaluator])]
        cfg.test_evaluator.append(dict(type='DumpResults', out_file_path=args.out))
    runner = Runner.from_cfg(cfg) if 'runner_type' not in cfg else RUNNERS.build(cfg)
    runner.test()
    close_processes()


if __name__ == '__main__':
    main()
