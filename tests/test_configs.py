# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Every config that is shipped: it loads, differs from its baseline by the plugin only, and
trains."""

import math
import os
import re
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from mmengine import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from PIL import Image

from mmfeataug.datasets import make_demo_data
from mmfeataug.registry import AUGMENTATIONS

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(
    path.relative_to(ROOT / 'configs').as_posix()
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
PLUGIN = [name for name in CONFIGS if 'custom_hooks' in (ROOT / 'configs' / name).read_text()]
FINE_GRAINED = ('_cub', '_fgvc-aircraft', '_stanford-cars')
FINE_TUNED = ('load_from', 'train_cfg', 'optim_wrapper', 'param_scheduler')


QUICK = (
    'adautomix/adautomix_faster-rcnn_r18_fpn_8e_bccd.py',
    'adautomix/adautomix_resnet18_1xb64_digits.py',
    'advbn/advbn_deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py',
    'advprop/advprop_faster-rcnn_r18_fpn_8e_bccd.py',
    'afan/afan_deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py',
    'afan/afan_faster-rcnn_r18_fpn_8e_bccd.py',
    'afan/afan_resnet18_1xb64_digits.py',
    'afan/lalfa_resnet18_1xb64_digits.py',
    'baseline/faster-rcnn_r18_fpn_8e_bccd.py',
    'demo/afan_deeplabv3plus_r18_demo-voc.py',
    'demo/afan_faster-rcnn_r18_fpn_demo-coco.py',
    'fma/fma_deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py',
    'fma/stability_faster-rcnn_r18_fpn_8e_bccd.py',
    'sea/sea_resnet18-linear_1xb64_digits.py',
    'statistic/mixstyle_faster-rcnn_r18_fpn_8e_bccd.py',
)
"""Each method, task and layout of data once: they stand for the others where time is short."""


def of_task(name):
    """A case with the mark of its task."""
    marks = [] if name in QUICK else [pytest.mark.slow]
    if any(data in name for data in ('cifar', 'in1k', 'digits', 'imagenet', *FINE_GRAINED)):
        marks.append(pytest.mark.classification)
    return pytest.param(name, marks=marks)


LABELLED = ('CIFAR10', 'CIFAR100', 'ImageNet', 'CUB', 'FGVCAircraft', 'StanfordCars')
TRAINED = [of_task(name) for name in CONFIGS]
REAL_DATA = Path(os.environ.get('MMFEATAUG_DATA', ROOT.parent / 'shared' / 'data'))


@pytest.fixture(autouse=True)
def frameworks(request):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    if request.node.get_closest_marker('classification'):
        pytest.importorskip('torchvision')
        pytest.importorskip('mmpretrain')


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """Drawn data in every layout that the configs read, as the folder ``data/``."""
    root = tmp_path_factory.mktemp('configs') / 'data'
    make_demo_data(root, train=8, val=2, size=(128, 96))
    year = root / 'VOCdevkit' / 'VOC2012'
    for split, stems in (('train', 'train'), ('val', 'val')):
        images, labels = root / 'camvid/img_dir' / split, root / 'camvid/ann_dir' / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for stem in (year / f'ImageSets/Segmentation/{stems}.txt').read_text().split():
            shutil.copy(year / f'JPEGImages/{stem}.jpg', images)
            label = np.minimum(np.asarray(Image.open(year / f'SegmentationClass/{stem}.png')), 11)
            Image.fromarray(label).save(labels / f'{stem}.png')
    shutil.copytree(root / 'VOCdevkit' / 'VOC2007', root / 'bccd')
    (root / 'demo').symlink_to(root, target_is_directory=True)
    folders = ('tiny-imagenet-200', 'CUB_200_2011', 'fgvc-aircraft-2013b', 'Stanford_Cars')
    for name in ('digits', 'cifar10', 'cifar100', *folders):
        (root / name).symlink_to(root / 'imagenet', target_is_directory=True)
    return root


def load(name):
    return Config.fromfile(ROOT / 'configs' / name)


def build_model(cfg):
    utils = import_module(f'{cfg.default_scope}.utils')
    utils.register_all_modules(init_default_scope=False)
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


def augmentations_of(cfg):
    driven = [a for hook in cfg.get('custom_hooks', []) for a in hook.get('augmentations', [])]
    return [*driven, *cfg.model.get('augmentations', [])]


def base_path(name):
    path = ROOT / 'configs' / name
    (base,) = re.findall(r"^_base_ = '(.+)'$", path.read_text(), re.MULTILINE)
    return base


def base_of(name, tmp_path):
    """The config that ``name`` says it adds the plugin to."""
    path, base = ROOT / 'configs' / name, base_path(name)
    if '::' not in base:
        base = str(path.parent / base)
    copy = tmp_path / 'base.py'
    copy.write_text(f'_base_ = {base!r}\n')
    return Config.fromfile(copy)


def last_checkpoint(cfg):
    """Name of what a training ends with."""
    loop = cfg['train_cfg']
    if loop.get('by_epoch', loop.get('type') == 'EpochBasedTrainLoop'):
        return f'epoch_{loop["max_epochs"]}.pth'
    return f'iter_{loop["max_iters"]}.pth'


def walk(node, change):
    """Apply ``change`` to every dict below ``node``, children first."""
    if isinstance(node, dict):
        for value in list(node.values()):
            walk(value, change)
        change(node)
    elif isinstance(node, (list, tuple)):
        for value in node:
            walk(value, change)


def shrink(cfg, data, work_dir):
    """Two iterations and one evaluation on small images; the model keeps its layers."""

    def change(node):
        for key, value in node.items():
            if isinstance(value, str) and value.startswith('data/'):
                node[key] = str(data / value[len('data/') :])
            elif key == 'init_cfg' and 'Pretrained' in str(value):
                node[key] = None
        if node.get('type') == 'Resize':
            node['scale'] = (128, 96)
        elif node.get('type') == 'RandomResize':
            two = isinstance(node['scale'], list)
            node['scale'] = [(128, 96), (160, 112)] if two else (128, 96)
        elif node.get('type') == 'RandomCrop':
            node['crop_size'] = (64, 64)
        elif node.get('type') == 'RandomSampler':
            node['num'] = min(node['num'], 32)
        elif node.get('type') == 'SegDataPreProcessor':
            node['size'] = (64, 64)
        elif node.get('type') in ('RandomResizedCrop', 'ResizeEdge', 'EfficientNetRandomCrop'):
            node['scale'] = 64
        elif node.get('type') in ('CenterCrop', 'EfficientNetCenterCrop'):
            node['crop_size'] = 64
        elif node.get('type') in LABELLED:
            # drawn shapes, in the folders of ImageNet
            node['data_prefix'] = 'train' if node.pop('split').startswith('train') else 'val'
            node.update(type='CustomDataset', data_root=node['data_root'].rstrip('/'), indices=None)
            if node['pipeline'][0]['type'] != 'LoadImageFromFile':
                node['pipeline'].insert(0, dict(type='LoadImageFromFile'))
        if 'RBC' in node.get('classes', ()):
            node['classes'] = ('person', 'car', 'bus')
        if 'max_per_img' in node:
            node.update(max_per_img=20)
        if 'allowed_border' in node:
            # no anchor of 128 pixels lies within such an image
            node.update(allowed_border=-1)

    walk(cfg._cfg_dict, change)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.batch_size = min(2, cfg.train_dataloader.batch_size)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
    cfg.default_hooks.update(checkpoint=None, logger=dict(type='LoggerHook', interval=1))
    cfg.log_processor = dict(by_epoch=False)
    cfg.visualizer.vis_backends = []
    cfg.randomness = dict(seed=0)
    cfg.work_dir = str(work_dir)
    # runners of the same second would share a name, and with it the default scope
    cfg.experiment_name = work_dir.name
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize(
    'path', list((ROOT / 'configs/baseline').glob('*.py')), ids=lambda p: p.stem
)
def test_rate_scales_with_the_batch(path):
    """By ``--auto-scale-lr``, from what the rate is made for: the batch in the file's name."""
    cfg = Config.fromfile(path)
    batch = cfg.auto_scale_lr.base_batch_size
    if named := re.search(r'_(\d+)xb(\d+)', path.stem):
        assert batch == int(named[1]) * int(named[2])
    else:
        assert batch == {'bccd': 4, 'cityscapes': 8}.get(path.stem.split('_')[-1], 16)


@pytest.mark.parametrize('name', TRAINED)
def test_builds(name):
    cfg = load(name)
    # the two hosts that stock configs point to do not answer
    assert not re.search(r'openmmlab\.com|onedl\.ai|open-mmlab://', cfg.pretty_text)
    modules = dict(build_model(cfg).named_modules())
    for augmentation in augmentations_of(cfg):
        at = augmentation.get('at', 'inputs')
        assert at == 'inputs' or at in modules
        if 'compare' in augmentation:
            assert augmentation.compare in modules


@pytest.mark.parametrize('name', [of_task(name) for name in PLUGIN])
def test_differs_from_its_baseline_by_the_plugin_only(name, tmp_path):
    """And the baseline has enough for it: samples in a batch, a checkpoint to go on from."""
    baseline = base_of(name, tmp_path)._cfg_dict.to_dict()
    cfg = load(name)
    for augmentation in augmentations_of(cfg):
        kind = AUGMENTATIONS.get(augmentation.type.removeprefix('mmfeataug.'))
        assert cfg.train_dataloader.batch_size >= getattr(kind, 'samples', 1)
    cfg = cfg._cfg_dict.to_dict()
    assert 'custom_hooks' not in baseline
    hooks = ['mmfeataug.FeatureAugHook']
    if name.startswith('adautomix/'):
        hooks.insert(0, 'mmengine.EMAHook')
    if name.startswith(('adautomix/', 'afan/lalfa')):
        cfg['optim_wrapper'].pop('paramwise_cfg', None)
    assert [hook['type'] for hook in cfg.pop('custom_hooks')] == hooks
    if cfg['model']['type'] == 'mmfeataug.AugmentedModel':
        cfg['model']['type'] = cfg['model'].pop('of')
        cfg['model'].pop('augmentations')
        assert cfg.pop('find_unused_parameters')
    if name.startswith('fma/'):
        start = Path(cfg['load_from'])
        assert start.parent.name == Path(base_path(name)).stem
        assert start.name == last_checkpoint(baseline)
        cfg, baseline = (
            {k: v for k, v in c.items() if k not in FINE_TUNED} for c in (cfg, baseline)
        )
    assert cfg == baseline


@pytest.mark.parametrize(
    'name', [of_task(name) for name in PLUGIN if name.startswith(('afan/', 'demo/'))]
)
def test_afan_weights(name):
    """They sum to 1, but for the rows that mirror the release's detection objective."""
    cfg = load(name)
    (hook,) = cfg.custom_hooks
    entries = hook.get('augmentations') or cfg.model.augmentations
    views = sum(a.weight * len(a.get('strengths', (1.0,))) for a in entries)
    mirrored = 'faster-rcnn' in name and name.endswith('_release.py')
    assert hook.clean_weight + views == pytest.approx(3.8 / 3 if mirrored else 1)


@pytest.mark.parametrize(
    ('name', 'losses', 'total'),
    [
        ('afan_faster-rcnn_r50-c4_1xb8-11k_voc07', (1, 1.2, 1.3, 1.4, 1.5, 2), 1.693333),
        ('afan_deeplabv3plus_r50-d16_1xb4-30k_voc12-513x513', (1, 1.2, 1.3, 2), 1.15),
    ],
)
def test_release_objective(name, losses, total):
    """Clean loss, encoder views, last view: weighed by the config as by the release."""
    (hook,) = load(f'afan/{name}_release.py').custom_hooks
    weights = [hook.clean_weight]
    for augmentation in hook.augmentations:
        weights += [augmentation.weight] * len(augmentation.strengths)
    assert sum(w * v for w, v in zip(weights, losses, strict=True)) == pytest.approx(
        total, abs=1e-6
    )


@pytest.mark.parametrize('name', TRAINED)
def test_trains(name, data, tmp_path):
    cfg = shrink(load(name), data, tmp_path)
    cfg.load_from = None
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    logged = runner.message_hub.log_scalars
    assert math.isfinite(logged['train/loss'].current())
    assert any(key.startswith('val/') for key in logged)
    terms = [key for key in logged if re.fullmatch(r'train/[a-z+]+\.loss_0', key)]
    layers = ('mixstyle', 'dsu', 'moex', 'padain', 'np_', 'np-plus')
    assert bool(terms) == (name in PLUGIN and not Path(name).name.startswith(layers))
    assert ('train/feature_aug.active' in logged) == (name in PLUGIN)


@pytest.mark.parametrize(
    ('name', 'metric'),
    [
        ('baseline/faster-rcnn_r18_fpn_8e_bccd.py', 'pascal_voc/AP50'),
        ('baseline/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py', 'mIoU'),
    ],
)
def test_trains_on_real_data(name, metric, tmp_path):
    """The labels of the real sets fit the configs: class names, the ignored index, boxes without
    area."""
    cfg = load(name)
    if not (REAL_DATA / cfg.data_root[len('data/') :]).is_dir():
        pytest.skip(f'no data under {REAL_DATA}: set MMFEATAUG_DATA')
    classes = cfg.train_dataloader.dataset.metainfo.classes
    cfg = shrink(cfg, REAL_DATA, tmp_path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.metainfo.classes = classes
        loader.dataset.indices = 8
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert math.isfinite(runner.message_hub.get_scalar('train/loss').current())
    assert f'val/{metric}' in runner.message_hub.log_scalars
