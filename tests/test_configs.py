# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Every config that is shipped: it loads, differs from its baseline by the plugin only, and
trains."""

import inspect
import math
import os
import re
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from PIL import Image

import mmfeataug
from mmfeataug.datasets import make_demo_data
from mmfeataug.engine import FeatureTransform
from mmfeataug.registry import AUGMENTATIONS
from tests.models import build_detector, faster_rcnn_cfg, step
from tests.oracle import double, double_precision

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(
    path.relative_to(ROOT / 'configs').as_posix()
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
PLUGIN = [
    name for name in CONFIGS if not re.match('baseline/|demo/(?!afan|recommended|distort)', name)
]
TUNED = [n for n in CONFIGS if "load_from = 'work_dirs" in (ROOT / 'configs' / n).read_text()]
FINE_GRAINED = ('_cub', '_fgvc-aircraft', '_stanford-cars')


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
    'demo/distort-images_deeplabv3plus_enet-lite0_demo-cityscapes.py',
    'demo/recommended_faster-rcnn_enet-lite0_fpn_demo-voc.py',
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
    if 'enet-lite0' in name:
        missing = find_spec('timm') is None
        marks += [pytest.mark.classification, pytest.mark.skipif(missing, reason='needs timm')]
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
    """What ``name`` inherits, without the method's block: a stock config, or a path."""
    path = ROOT / 'configs' / name
    (found,) = re.findall(r"^_base_ = \[?\s*'([^']+)'", path.read_text(), re.MULTILINE)
    return found if '::' in found else str((path.parent / found).resolve())


def base_of(name, tmp_path):
    """The config that ``name`` says it adds the plugin to."""
    base = base_path(name)
    own = os.path.relpath(base, ROOT / 'configs')
    if own in PLUGIN:
        return base_of(own, tmp_path)
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
        elif node.get('type') == 'Pad':
            node['size'] = (64, 64)
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
    check_places(cfg)


def check_places(cfg):
    """The model builds, and has what its augmentations name."""
    modules = dict(build_model(cfg).named_modules())
    for augmentation in augmentations_of(cfg):
        at = augmentation.get('at', 'inputs')
        assert at == 'inputs' or at in modules
        if 'compare' in augmentation:
            assert augmentation.compare in modules


@pytest.mark.parametrize('name', [of_task(name) for name in PLUGIN])
def test_differs_from_its_baseline_by_the_plugin_only(name, tmp_path):
    """And the baseline has enough samples in a batch for it."""
    baseline = base_of(name, tmp_path)._cfg_dict.to_dict()
    cfg = load(name)
    for augmentation in augmentations_of(cfg):
        kind = AUGMENTATIONS.get(augmentation.type.removeprefix('mmfeataug.'))
        assert cfg.train_dataloader.batch_size >= kind.least_samples
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
    cfg.pop('adautomix', None)  # What rows of the release share: a part, as models are.
    if name in TUNED:
        cfg['load_from'] = baseline['load_from']
        cfg['optim_wrapper']['optimizer']['lr'] *= 10
    assert cfg == baseline


@pytest.mark.classification
@pytest.mark.parametrize('name', TUNED)
def test_fine_tuning_goes_on_from_the_baseline(name, tmp_path):
    """From its last checkpoint, at a tenth of its learning rate."""
    cfg, baseline = load(name), base_of(name, tmp_path)
    start = Path(cfg.load_from)
    assert start.parent.name == Path(base_path(name)).stem
    assert start.name == last_checkpoint(baseline)
    assert 10 * cfg.optim_wrapper.optimizer.lr == baseline.optim_wrapper.optimizer.lr


GUIDE = (ROOT / 'configs/README.md').read_text()
TABLE = {
    method: [cell.strip(' `') for cell in cells.split('|')]
    for method, cells in re.findall(
        r'^\| `([\w-]+)` \|((?:[^|\n]*\|){3}[^|\n]*)\|$', GUIDE, re.MULTILINE
    )
}
"""By block: whether it is declared in the model; settings for detection, segmentation, digits."""
SMALL = (
    'faster-rcnn_r18_fpn_8e_bccd.py',
    'deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py',
    'resnet18_1xb64_digits.py',
)


BLOCKS = sorted(path.stem for path in (ROOT / 'configs/_base_/methods').glob('*.py'))


def test_every_row_has_a_block():
    assert TABLE.keys() <= set(BLOCKS)
    assert all(any(cells) for cells in TABLE.values())


@pytest.mark.classification
# The shipped afan config of digits has a re-injected view; that network has no pooling for mrfp.
@pytest.mark.parametrize('method', [name for name in BLOCKS if name not in ('afan', 'mrfp')])
def test_three_lines(method, tmp_path):
    """Those of the README give the configs that are shipped; others have their places."""
    # Blocks without a row need no settings.
    declared, *settings = TABLE.get(method, [''] * 4)
    (declaration,) = re.findall(r'^model = .+?^\)$', GUIDE, re.MULTILINE | re.DOTALL)
    for baseline, setting in zip(SMALL, settings, strict=True):
        bases = [
            f'{ROOT}/configs/baseline/{baseline}',
            f'{ROOT}/configs/_base_/methods/{method}.py',
        ]
        lines = [f'_base_ = {bases}']
        if setting:
            lines.append(f'_base_.custom_hooks[-1].augmentations[0].update({setting})')
        if declared:
            lines.append(declaration)
        config = tmp_path / baseline
        config.write_text('\n'.join(lines))
        cfg = Config.fromfile(config)
        for shipped in (ROOT / 'configs').glob(f'*/{method}_{baseline}'):
            assert augmentations_of(cfg) == augmentations_of(Config.fromfile(shipped))
            break
        else:
            check_places(cfg)


def defaults(kind):
    """Of all settings of a method, those of its base classes included if it hands them on."""
    found = {}
    for cls in kind.__mro__:
        parameters = inspect.signature(cls.__init__).parameters.values()
        known = {p.name: p.default for p in parameters if p.default is not p.empty}
        found = {**known, **found}
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            return found
    raise AssertionError(kind)


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(n, marks=pytest.mark.classification if 'resn' in n else ())
        for n in CONFIGS
        if n.endswith('_release.py')
    ],
)
def test_a_release_names_every_setting(name):
    """Defaults may move, releases do not. Only what is off by default may be left out."""
    cfg = load(name)
    (hook,) = (h for h in cfg.custom_hooks if h.type == 'mmfeataug.FeatureAugHook')
    assert hook.clean_weight > 0
    for augmentation in augmentations_of(cfg):
        kind = AUGMENTATIONS.get(augmentation.type.removeprefix('mmfeataug.'))
        needed = {n for n, default in defaults(kind).items() if default not in (None, False, 0, ())}
        needed |= {'weight'} & defaults(kind).keys()
        if kind.__name__ == 'LALFA':
            # They are learnt.
            needed -= {'strengths'}
        assert needed <= augmentation.keys(), augmentation


@pytest.mark.parametrize(
    'name', [of_task(name) for name in PLUGIN if name.startswith(('afan/', 'demo/afan'))]
)
def test_afan_weights(name):
    """They sum to 1, but for the rows that mirror the release's detection objective."""
    cfg = load(name)
    (hook,) = cfg.custom_hooks
    entries = hook.get('augmentations') or cfg.model.augmentations
    views = sum(a.get('weight', 0.0) * len(a.get('strengths', (1.0,))) for a in entries)
    mirrored = 'faster-rcnn' in name and name.endswith('_release.py')
    clean = hook.get('clean_weight')
    clean = 1 - views if clean is None else clean
    assert clean > 0
    assert clean + views == pytest.approx(3.8 / 3 if mirrored else 1)


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


CIFAR10_DEVIATIONS = [0.2470, 0.2435, 0.2616]
CIFAR_MEANS, CIFAR_DEVIATIONS = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


def levels(shares):
    return pytest.approx([255 * s for s in shares])


def release_presets(start):
    names = [n for n in CONFIGS if n.startswith(start) and n.endswith('_release.py')]
    assert names
    return names


def test_release_detection():
    """Scores above 0.05, bins from the corner of a pixel, gradients of the RoI pass's RPN terms."""
    for name in release_presets('afan/afan_faster-rcnn'):
        cfg = load(name)
        assert cfg.custom_hooks[0].augmentations[0].learn == 'tail'
        assert cfg.model.test_cfg.rcnn.score_thr == 0.05
        assert cfg.model.roi_head.bbox_roi_extractor.roi_layer.aligned is False
        assert cfg.custom_hooks[0].augmentations[1].learn == 'skips'


@pytest.mark.parametrize(('learn', 'share'), [('skips', 1.0), ('tail', 0.7)])
def test_release_rpn_terms(learn, share):
    """In the release the RPN's losses of the RoI pass have a gradient, w / 3 times that of the
    clean ones: with the preset's setting the RPN has all of it, with learn='tail' as much as the
    clean weight of .7 / 3 gives."""
    (hook,) = load('afan/afan_faster-rcnn_r50-c4_1xb8-11k_voc07_release.py').custom_hooks
    roi = hook.augmentations[1].to_dict()
    assert roi['learn'] == 'skips'
    roi.update(at='roi_head.bbox_head.shared_fcs.1', learn=learn)
    with double_precision():
        model, batch = double(lambda: build_detector(faster_rcnn_cfg()))
        _, stock = step(model, batch)
        with mmfeataug.attach(model, [roi], clean_weight=hook.clean_weight):
            _, found = step(model, batch)
    release = (0.7 + 0.3) / 3
    for name in stock:
        if name.startswith('rpn_head'):
            torch.testing.assert_close(found[name], share * release * stock[name])


def test_release_segmentation():
    for name in release_presets('afan/afan_deeplab'):
        cfg = load(name)
        assert cfg.model.decode_head.type == 'mmfeataug.PlainDeepLabV3PlusHead'
        padded = [step for step in cfg.train_pipeline if step.type == 'Pad']
        if 'voc' in name:
            assert [step.pad_val for step in padded] == [dict(img=0, seg=0)]
        else:
            assert not padded


def test_release_crops_have_a_black_border_of_background():
    """Images of 500x375 at 0.5 to 2 times their size, in crops of 513."""
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')
    cfg = load('afan/afan_deeplabv3plus_r50-d16_1xb4-30k_voc12-513x513_release.py')
    pipeline = Compose(cfg.train_pipeline[2:-1])
    np.random.seed(0)
    found = []
    for _ in range(20):
        made = pipeline(
            dict(
                img=np.full((375, 500, 3), 200, np.uint8),
                gt_seg_map=np.full((375, 500), 7, np.uint8),
                seg_fields=['gt_seg_map'],
                img_shape=(375, 500),
            )
        )
        image, label = made['img'], made['gt_seg_map']
        assert image.shape[:2] == label.shape == (513, 513)
        black = (image == 0).all(-1)
        assert set(np.unique(label[black])) <= {0}
        assert set(np.unique(label[~black])) == {7}
        found.append(black.mean())
    assert 0 < np.mean(found) < 0.5


@pytest.mark.classification
def test_release_classification():
    for name in ('afan_resnet18_1xb128_cifar10', 'lalfa_resnet18_1xb128_cifar10'):
        scale = load(f'afan/{name}_release.py').data_preprocessor
        assert (scale.mean, scale.std) == (levels(CIFAR_MEANS), levels(CIFAR10_DEVIATIONS))
    *places, norm = load('afan/lalfa_resnet18_1xb128_cifar10_release.py').model.augmentations
    assert {a.type for a in places} == {'mmfeataug.LALFA'}
    assert (norm.type, norm.l1) == ('mmfeataug.StrengthNorm', 1.0)


@pytest.mark.classification
@pytest.mark.parametrize('name', release_presets('adautomix/'))
def test_release_adautomix(name):
    """What stands behind query and key; the last learning rate; crops and scale of the images."""
    cfg = load(name)
    (entry,) = cfg.model.augmentations
    assert (entry.relu, entry.get('norm', False)) == (True, 'resnet50' in name)
    least = 0.05 if 'cifar' in name else 0.0005 if 'aircraft' in name else 0
    assert cfg.param_scheduler.get('eta_min', 0) == least
    crop = next(s for s in cfg.train_dataloader.dataset.pipeline if 'Crop' in s.type)
    if 'cifar' in name:
        scale = cfg.data_preprocessor
        assert (scale.mean, scale.std) == (levels(CIFAR_MEANS), levels(CIFAR_DEVIATIONS))
    if 'cifar100' in name:
        assert crop.padding_mode == 'reflect'
    if 'in1k' in name:
        assert (crop.interpolation, crop.backend) == ('bicubic', 'pillow')
        for loader in (cfg.val_dataloader, cfg.test_dataloader):
            assert loader.dataset.pipeline[1].interpolation == 'bicubic'


@pytest.mark.classification
def test_release_sea():
    """The classifier begins as PyTorch's linear layers do, without a bias, which stays 0."""
    cfg = load('sea/sea_resnet50-linear_1xb256_in1k_release.py')
    cfg.model.backbone.update(init_cfg=None, depth=18)
    cfg.model.head.num_classes = 20
    model = build_model(cfg)
    model.head.init_weights()
    layer, width = model.head.fc, 2048**-0.5
    assert not layer.bias.any()
    assert float(layer.weight.abs().max()) == pytest.approx(width, rel=0.01)
    assert float(layer.weight.std()) == pytest.approx(width / 3**0.5, rel=0.02)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    layer(torch.ones(4, 2048)).square().sum().backward()
    optimizer.step()
    assert not layer.bias.any()
    assert float(layer.weight.abs().max()) > 2 * width


def adds_terms(augmentation):
    """Layers change the clean pass instead."""
    kind = AUGMENTATIONS.get(augmentation.type)
    return not issubclass(kind, FeatureTransform) or augmentation.get('as_view', False)


@pytest.mark.parametrize('name', TRAINED)
def test_trains(name, data, tmp_path):
    cfg = shrink(load(name), data, tmp_path)
    cfg.load_from = None
    for hook in cfg.get('custom_hooks', ()):
        hook.pop('prob', None)  # Views in both steps.
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    logged = runner.message_hub.log_scalars
    assert math.isfinite(logged['train/loss'].current())
    assert any(key.startswith('val/') for key in logged)
    terms = [key for key in logged if re.fullmatch(r'train/[a-z+]+\.loss_0', key)]
    assert bool(terms) == any(map(adds_terms, augmentations_of(cfg)))
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
