# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Every tool on stock configs of the three packages, made small, on drawn data: it runs, or says in
one sentence why not. A traceback is a failure."""

import re
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec

import pytest
import torch
from mmengine.config import Config

from mmfeataug.utils.configs import data_sets, set_workers
from tests.launch import launch
from tests.test_tools import ROOT
from tests.zoo.shrink import find_config, shrink
from tests.zoo.table import ENTRIES

pytestmark = pytest.mark.slow

ZOO = (
    'faster-rcnn_r50_fpn_1x_coco', 'cascade-rcnn_r50_fpn_1x_coco', 'mask-rcnn_r50_fpn_1x_coco',
    'retinanet_r50_fpn_1x_coco', 'fcos_r50-caffe_fpn_gn-head_1x_coco', 'yolof_r50-c5_8xb8-1x_coco',
    'yolox_s_8xb8-300e_coco', 'centernet_r18_8xb16-crop512-140e_coco', 'detr_r50_8xb2-150e_coco',
    'fcn_r50-d8_4xb2-40k_cityscapes-512x1024', 'pspnet_r50-d8_4xb2-40k_cityscapes-512x1024',
    'deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024',
    'segformer_mit-b0_8xb1-160k_cityscapes-1024x1024', 'ocrnet_hr48_4xb2-40k_cityscapes-512x1024',
    'encnet_r50-d8_4xb2-40k_cityscapes-512x1024', 'bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024',
)  # fmt: skip
CLASSIFIERS = {
    'resnet/resnet18_8xb32_in1k.py': 'backbone.layer1',
    'mobilenet_v2/mobilenet-v2_8xb32_in1k.py': 'backbone.layer2',
    'convnext/convnext-tiny_32xb128_in1k.py': 'backbone.stages.0',
    'swin_transformer/swin-tiny_16xb64_in1k.py': 'backbone.stages.0',
}


@dataclass(frozen=True)
class Stock:
    """A stock config, and how it is made small."""

    package: str
    config: str
    at: str
    divisor: int = 1
    overrides: tuple = ()

    @property
    def name(self):
        return self.config.rpartition('/')[2].removesuffix('.py')


BY_NAME = {entry.name: entry for entry in ENTRIES}
STOCKS = [
    Stock(e.package, e.config, e.early, e.divisor, tuple(e.overrides.items()))
    for e in map(BY_NAME.__getitem__, ZOO)
] + [Stock('mmpretrain', config, at) for config, at in CLASSIFIERS.items()]
assert len(STOCKS) == 20
CLASSES = ('person', 'car', 'bus')
# Pixels: a stride of 128 has more than one place.
SHORT, LONG = 128, 192


def resized(value):
    """Steps of a pipeline with small images."""
    if isinstance(value, dict):
        return {k: resized(v) for k, v in value.items() if k != 'min_gt_bbox_wh'}
    if isinstance(value, (list, tuple)):
        if len(value) == 2 and all(type(v) is int and v > 96 for v in value):
            # Height and width, or the longer and the shorter side: in the order of the stock one.
            return type(value)((SHORT, LONG) if value[0] <= value[1] else (LONG, SHORT))
        return type(value)(resized(v) for v in value)
    return SHORT if type(value) is int and 96 < value < 4000 else value


def drawn(dataset, split, package, data):
    """A drawn data set, read by the steps of a stock one."""
    pipeline = dataset.get('pipeline') or []
    if package != 'mmpretrain':
        pipeline = resized(pipeline)
    if package == 'mmdet':
        return dict(
            type='CocoDataset', data_root=data['coco'], metainfo=dict(classes=CLASSES),
            ann_file=f'annotations/instances_{split}2017.json', indices=2,
            data_prefix=dict(img=f'{split}2017/'), test_mode=split == 'val', pipeline=pipeline,
        )  # fmt: skip
    if package == 'mmseg':
        return dict(
            type='CityscapesDataset', data_root=data['cityscapes'], indices=2, pipeline=pipeline,
            data_prefix=dict(img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}'),
        )  # fmt: skip
    return dict(
        type='ImageNet', data_root=data['imagenet'], split='', data_prefix=split, indices=2,
        metainfo=dict(classes=CLASSES), pipeline=pipeline,
    )  # fmt: skip


def small(stock, data):
    """A stock config on drawn data, trained for two iterations, with an augmentation."""
    cfg = Config.fromfile(find_config(stock.package, stock.config), import_custom_modules=False)
    shrink(cfg.model, stock.divisor, dict(stock.overrides))
    classes = dict(mmdet=3, mmseg=19, mmpretrain=1000)[stock.package]
    for part in parts(cfg.model):
        if isinstance(part.get('num_classes'), int):
            part['num_classes'] = classes
        if stock.package == 'mmseg' and part.get('size'):
            part['size'] = (SHORT, LONG)
        part.pop('batch_augments', None)
    for name, split in dict(train='train', val='val', test='val').items():
        loader = cfg[f'{name}_dataloader']
        # Batch norms on one pixel need two images.
        loader.batch_size = 2 if name == 'train' else 1
        set_workers(loader)
        steps = loader.dataset.get('pipeline')
        for path, dataset in data_sets(loader.dataset, 'dataset').items():
            *above, last = path.split('.')
            place = loader
            for key in above:
                place = place[int(key) if isinstance(place, list) else key]
            place[last] = drawn(dataset, split, stock.package, data)
        if steps and 'dataset' in loader.dataset:
            # Of a data set that wraps another and mixes its images.
            loader.dataset['pipeline'] = resized(steps)
    if stock.package == 'mmdet':
        annotations = f'{data["coco"]}/annotations/instances_val2017.json'
        cfg.test_evaluator = dict(type='CocoMetric', ann_file=annotations, metric='bbox')
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    cfg.param_scheduler, cfg.load_from = [], None
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e-4))
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=2, by_epoch=False)
    hook = dict(
        type='mmfeataug.FeatureAugHook', clean_weight=0.5,
        augmentations=[dict(type='mmfeataug.AFAN', at=stock.at, gamma=0.01, weight=0.5)],
    )  # fmt: skip
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]
    return cfg


def parts(value):
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from parts(inner)


TRAINED = {
    'test.py': (),
    'test_robustness.py': ('--corruptions', 'fog', '--severities', 1),
    'test_adversarial.py': ('--eps', 0, 1, '--steps', 1),
    'analysis_tools/visualize_features.py': (0, '--out', 'drawn', '--batch-size', 2),
    'analysis_tools/loss_surface.py': ('--points', 3, '--at'),
    'analysis_tools/visualize_mixing.py': ('--batch', 2),
    'model_converters/to_stock.py': ('stock.pth',),
}
SEEN = Counter()


@pytest.fixture(scope='module', autouse=True)
def counts(request):
    yield
    SEEN['pairs'] = sum(n for key, n in SEEN.items() if isinstance(key, str))
    with request.config.pluginmanager.getplugin('capturemanager').global_and_fixture_disabled():
        for key, count in SEEN.most_common():
            print(f'\n{count:4d}  {key if isinstance(key, str) else ": ".join(key)}', end='')


def attempt(tool, *args, cwd):
    """Whether a tool ran; else it has said why not."""
    result = launch(ROOT / 'tools' / tool, *args, cwd=cwd)
    if not result.returncode:
        SEEN['ran'] += 1
        return True
    assert 'Traceback' not in result.stderr, f'{tool}: {result.stderr[-3500:]}'
    said = result.stderr.strip().splitlines()[-1]
    assert result.returncode > 0, f'{tool} was killed by signal {-result.returncode}'
    assert len(said) > 20, said
    SEEN['refused'] += 1
    SEEN[tool, re.sub(r"[\w/.-]*/|'[^']*'", '', said)] += 1
    return False


@pytest.mark.parametrize('stock', STOCKS, ids=lambda stock: stock.name)
def test_every_tool_runs_or_says_why_not(stock, demo_data, tmp_path):
    if find_spec(stock.package) is None:
        pytest.skip(f'{stock.package} is not installed')
    torch.manual_seed(0)
    small(stock, demo_data).dump(str(tmp_path / 'cfg.py'))
    faults, size = [], 224 if stock.package == 'mmpretrain' else 64

    def works(tool, *args):
        try:
            return attempt(tool, *args, cwd=tmp_path)
        except AssertionError as fault:
            faults.append(str(fault))
            return False

    works('analysis_tools/list_taps.py', 'cfg.py', '--repeats', 1)
    works('analysis_tools/list_taps.py', 'cfg.py', '--repeats', 1, '--size', size, size)
    if works('train.py', 'cfg.py'):
        checkpoint = 'work_dirs/cfg/iter_2.pth'
        for tool, options in TRAINED.items():
            at = (stock.at,) if '--at' in options else ()
            config = () if 'to_stock' in tool else ('cfg.py',)
            works(tool, *config, checkpoint, *options, *at)
        works('analysis_tools/report.py', 'work_dirs/cfg', '--out', 'report', '--examples', 1)
    assert not faults, '\n\n'.join(faults)
