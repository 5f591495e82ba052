# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Runs of tools/test_robustness.py on models with random weights, for tests that look at them."""

import json
from pathlib import Path

import torch
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
TASKS = {
    'detection': ('faster-rcnn_r18_fpn_demo-coco.py', 'coco'),
    'segmentation': ('deeplabv3plus_r18_demo-cityscapes.py', 'cityscapes'),
    'classification': ('resnet18_demo-imagenet.py', 'imagenet'),
}
# Random weights find nothing. A sum over what they say shows every pixel that is different.
EXTRAS = """
import os, signal
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, METRICS

@METRICS.register_module(force=True)
class Checksum(BaseMetric):
    default_prefix = 'sum'

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            if 'pred_score' in sample:
                self.results.append(sample['pred_score'][0].double())
            elif 'seg_logits' in sample:
                self.results.append(sample['seg_logits']['data'].double().sum())
            else:
                self.results.append(sample['pred_instances']['scores'].double().sum())

    def compute_metrics(self, results):
        return {'all': float(sum(results)), 'nan': float('nan'), 'name': 'no number'}

@HOOKS.register_module(force=True)
class DieHook(Hook):
    conditions = 0

    def after_test_epoch(self, runner, metrics=None):
        self.conditions += 1
        if self.conditions == int(os.environ.get('TEST_DIE_AT', -1)):
            os.kill(os.getpid(), signal.SIGKILL)
"""
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['robustness_extras'])
custom_hooks = [dict(type='mmengine.DieHook')]
test_evaluator = [{evaluator}, dict(type='mmengine.Checksum')]
test_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root={data!r})
)
{more}
"""
EVALUATORS = {
    'detection': "dict(type='CocoMetric', ann_file={data!r} + "
    "'annotations/instances_val2017.json', metric='bbox')",
    'segmentation': "dict(type='IoUMetric', iou_metrics=['mIoU'])",
    'classification': "dict(type='Accuracy', topk=(1,))",
}
MORE = {
    'detection': 'model = dict(test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=20)))',
    'segmentation': '',
    'classification': 'model = dict(backbone=dict(stem_channels=8, base_channels=8), '
    'head=dict(in_channels=64))',
}
CONDITIONS = ['--corruptions', 'gaussian_noise', '--severities', '1', '3']
HELD = ('metrics', 'clean', 'corrupted', 'summary', 'mCE', 'notes')


def make_case(task, demo_data, tool, folder):
    from common import build_model

    base, layout = TASKS[task]
    data = demo_data[layout] + '/'
    config, checkpoint = folder / 'small.py', folder / 'random.pth'
    config.write_text(
        CONFIG.format(
            base=str(ROOT / 'configs/demo' / base),
            evaluator=EVALUATORS[task].format(data=data),
            data=data,
            more=MORE[task],
        )
    )
    torch.manual_seed(0)
    cfg = Config.fromfile(config)
    torch.save(dict(state_dict=build_model(cfg).state_dict(), meta={}), checkpoint)
    case = dict(task=task, config=config, checkpoint=checkpoint, folder=folder)
    return dict(case, table=run(tool, case, 'plain'))


def arguments(case, out, *more):
    work_dir = case['folder'] / 'work'
    args = [case['config'], case['checkpoint'], '--work-dir', work_dir]
    return [*map(str, args), '--out-dir', str(case['folder'] / out), *CONDITIONS, *more]


def run(tool, case, out, *more):
    tool.start(lambda: tool.main(arguments(case, out, *more)))
    return read(case, out)


def read(case, out):
    return json.loads((case['folder'] / out / 'robustness.json').read_text())


def held(table):
    return {key: table[key] for key in HELD}
