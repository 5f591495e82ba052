# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Test sets, evaluators and metrics that are not the usual ones, in the tools that test."""

import copy
import json
import pickle

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from mmfeataug.evaluation import complete, less_is_better, rows, summarise, to_markdown
from mmfeataug.evaluation.attacks.curve import markdown, score
from mmfeataug.evaluation.corruptions.run_table import RunTable
from mmfeataug.evaluation.scores import read_scores
from tests.test_tools import ROOT, run

DETECTOR = ROOT / 'configs/demo/faster-rcnn_r18_fpn_demo-coco.py'
SEGMENTOR = ROOT / 'configs/demo/deeplabv3plus_r18_demo-cityscapes.py'


def refused(tool, *args):
    """What a tool that cannot work says, which is no traceback."""
    log = run(tool, *args, ok=False)
    assert 'Traceback' not in log
    return log


def random_weights(config, path):
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    if hasattr(model, 'roi_head'):
        # Something of every class has a score beyond the threshold.
        torch.nn.init.zeros_(model.roi_head.bbox_head.fc_cls.weight)
        torch.nn.init.zeros_(model.roi_head.bbox_head.fc_cls.bias)
    torch.save({'state_dict': model.state_dict()}, path)
    return path


# Two data sets, an evaluator each; the images of the second are so small that nothing is found.
SEVERAL = """
_base_ = {base!r}
data, small = {data!r}, {small!r}
pipeline = _base_.test_dataloader.dataset.pipeline
sets = [
    dict(
        type='CocoDataset', data_root=root, metainfo=_base_.metainfo, test_mode=True,
        ann_file='annotations/instances_val2017.json', data_prefix=dict(img='val2017/'),
        pipeline=pipeline,
    )
    for root in (data, small)
]
test_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=sets),
)
test_evaluator = dict(
    _delete_=True,
    type='MultiDatasetsEvaluator',
    metrics=[
        dict(
            type='CocoMetric', ann_file=root + '/annotations/instances_val2017.json', metric='bbox'
        )
        for root in (data, small)
    ],
    dataset_prefixes=['first', 'second'],
)
"""


@pytest.fixture(scope='module')
def several(demo_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('several')
    config = folder / 'cfg.py'
    root = str(demo_data['coco'])
    config.write_text(SEVERAL.format(base=str(DETECTOR), data=root, small=root))
    return config, random_weights(config, folder / 'random.pth')


def test_predictions_of_several_data_sets_are_written(several, tmp_path):
    config, checkpoint = several
    path = tmp_path / 'found.pkl'
    log = run('test.py', config, checkpoint, '--work-dir', tmp_path, '--out', path)
    assert 'first/coco/bbox_mAP' in log
    with path.open('rb') as file:
        assert len(pickle.load(file)) == 8


def test_several_data_sets_under_corruptions_and_attacks(several, tmp_path):
    pytest.importorskip('imagecorruptions')
    config, checkpoint = several
    args = [config, checkpoint, '--work-dir', tmp_path]
    run('test_robustness.py', *args, '--corruptions', 'fog', '--severities', 1)
    table = json.loads((tmp_path / 'robustness/robustness.json').read_text())
    # Both data sets have the same images.
    of_first, of_second = (table['clean'][f'{name}/coco/bbox_mAP'] for name in ('first', 'second'))
    assert of_first == of_second
    assert of_first is not None
    assert table['made_with']['images'] == 8
    run('test_adversarial.py', *args, '--eps', 0, '--steps', 1)
    result = json.loads((tmp_path / 'adversarial/adversarial.json').read_text())
    assert result['curve'][0]['metrics'] == pytest.approx(table['clean'])


def test_a_refusal_of_the_package_is_no_traceback(several, tmp_path):
    config, checkpoint = several
    args = [config, checkpoint, '--work-dir', tmp_path, '--steps', 1]
    assert 'backbone.layr2' in refused('test_adversarial.py', *args, '--at', 'backbone.layr2')
    # What other code raises keeps its traceback.
    broken = tmp_path / 'broken.pth'
    log = run('test.py', config, broken, '--work-dir', tmp_path, ok=False)
    assert "broken.pth' is no file" in log
    assert 'Traceback' not in log
    broken.write_bytes(b'no checkpoint')
    log = run('test.py', config, broken, '--work-dir', tmp_path, ok=False)
    assert 'Traceback' in log


FIRST, SECOND = {'first/coco/bbox_mAP': 0.5}, {'second/coco/bbox_mAP': 0.25}


def test_nothing_found_in_one_of_several_data_sets_is_0():
    clean = {**FIRST, **SECOND}
    assert read_scores(dict(FIRST), clean, 'detection', found=3) == {
        **FIRST,
        'second/coco/bbox_mAP': 0.0,
    }
    # Undefined is something else: the evaluator says so, or returns part of its metrics.
    undefined = {**clean, 'second/coco/bbox_mAP_l': None}
    assert 'second/coco/bbox_mAP_l' not in read_scores(dict(FIRST), undefined, 'detection', 3)
    part = {**clean, 'second/coco/bbox_mAP_s': 0.1}
    assert read_scores(dict(clean), part, 'detection', 3) == clean
    assert read_scores(dict(FIRST), clean, 'segmentation', 3) == FIRST

    points = [dict(eps=e, metrics=m, found=3) for e, m in ((0, clean), (1, FIRST))]
    assert score(points, 'detection')[1]['metrics']['second/coco/bbox_mAP'] == 0.0


def test_another_test_set_gets_no_metric_of_the_first(tmp_path):
    table = RunTable(tmp_path, 'cfg', 'x.pth', dict(also=dict(night='1')), [])
    table.table['task'] = 'detection'
    table.add(('clean', 0), dict(FIRST), 5, 1.0)
    table.add(('night', 0), dict(SECOND), 5, 1.0)
    assert table.table['also']['night'] == SECOND


def test_what_clean_images_lack_is_0_too():
    table = dict(
        config='cfg', checkpoint='x', task='detection', clean=dict(FIRST),
        corrupted={'fog': {'1': {**FIRST, **SECOND}}},
    )  # fmt: skip
    for _ in range(2):
        table = complete(table)
        assert table['summary']['second/coco/bbox_mAP']['P'] == 0.0
    assert complete({**table, 'task': 'segmentation', 'clean': dict(FIRST)})['clean'] == {
        **FIRST,
        'second/coco/bbox_mAP': None,
    }


@pytest.mark.parametrize(
    'name',
    ['test_loss', 'crowd_human/mMR', 'abs_rel', 'RMSE', 'depth/rmse_log', 'MAE', 'a/top1_error'],
)
def test_less_is_better(name):
    assert less_is_better(name)


@pytest.mark.parametrize(
    'name',
    [
        'coco/bbox_mAP_l', 'mIoU', 'aAcc', 'accuracy/top1', 'pascal_voc/mAP', 'coco/AR@100', 'd1',
        'single-label/f1-score', 'crowd_human/JI', 'loss/mAP', 'MOTA', 'bdd/lane_mIoU',
    ],
)  # fmt: skip
def test_more_is_better(name):
    assert not less_is_better(name)


def test_the_part_that_is_left_of_an_error():
    corrupted = {'fog': {'1': {'rmse': 4.0, 'mIoU': 25.0}}}
    clean = {'rmse': 2.0, 'mIoU': 50.0}
    for metric in clean:
        assert summarise(clean, corrupted, metric)['rPC'] == 0.5
    assert summarise({'rmse': 2.0}, {'fog': {'1': {'rmse': 0.0}}}, 'rmse')['rPC'] is None
    # Of nothing found no error of 0 is made up.
    assert read_scores({}, {'mMR': 0.5, 'mAP': 0.5}, 'detection', found=0) == {'mAP': 0.0}


def test_bars_in_names_part_no_cells():
    name = 'IoU.bus|coach'
    table = complete(
        dict(
            config='cfg', checkpoint='x', task='segmentation', clean={name: 0.5},
            corrupted={'fog': {'1': {name: 0.25}}}, made_with={},
        )
    )  # fmt: skip
    row = next(line for line in to_markdown(table).splitlines() if 'bus' in line and '0.5' in line)
    assert row.startswith('| IoU.bus\\|coach | 0.5')
    assert rows(table, name)
    result = dict(
        attack='pgd', at='inputs', steps=1, seed=0, unit='pixel', norm='linf',
        curve=[dict(eps=0.0, metrics={name: 0.5}, loss=1.0)],
    )  # fmt: skip
    head = next(line for line in markdown(result).splitlines() if 'bus' in line)
    assert head == '| eps (pixel, linf) | IoU.bus\\|coach | attacked loss |'


def test_a_config_without_a_test_set(tmp_path):
    config, checkpoint = tmp_path / 'cfg.py', tmp_path / 'x.pth'
    checkpoint.write_bytes(b'')
    config.write_text(
        f'_base_ = {str(DETECTOR)!r}\ntest_dataloader = test_evaluator = test_cfg = None\n'
    )
    for tool in ('test.py', 'test_adversarial.py', 'test_robustness.py'):
        log = refused(tool, config, checkpoint, '--work-dir', tmp_path)
        assert 'has no test_dataloader, test_evaluator, test_cfg' in log
        assert tool in log
    tool = 'analysis_tools/loss_surface.py'
    assert 'has no test_dataloader, which' in refused(tool, config, checkpoint, '--at', 'backbone')
    config.write_text(f'_base_ = {str(DETECTOR)!r}\ntrain_dataloader = None\n')
    log = refused('analysis_tools/list_taps.py', config)
    assert 'has no train_dataloader: give --size' in log


WORKERS = """
_base_ = {base!r}
test_dataloader = dict(
    num_workers=2, persistent_workers=True, prefetch_factor=3, multiprocessing_context='fork',
    dataset=dict(data_root={data!r}, indices=1),
)
train_dataloader = dict(
    num_workers=2, persistent_workers=True, prefetch_factor=3, multiprocessing_context='fork',
    dataset=dict(data_root={data!r}, indices=2),
)
test_evaluator = dict(ann_file={data!r} + '/annotations/instances_val2017.json')
"""


def test_settings_of_workers_without_workers(demo_data, tmp_path):
    config = tmp_path / 'cfg.py'
    config.write_text(WORKERS.format(base=str(DETECTOR), data=str(demo_data['coco'])))
    checkpoint = random_weights(config, tmp_path / 'x.pth')
    options = ['--cfg-options', 'test_dataloader.num_workers=0']
    run('test.py', config, checkpoint, '--work-dir', tmp_path, *options)
    small = ['--at', 'neck', '--points', 3, '--out', tmp_path / 'surface.png']
    run('analysis_tools/loss_surface.py', config, checkpoint, *small)
    run('analysis_tools/list_taps.py', config, '--repeats', 1)


def test_losses_beside_predictions(demo_data, tmp_path, monkeypatch):
    """mmengine's loop takes a loss that ``predict`` returns last for its own."""
    from mmseg.models import EncoderDecoder

    cfg = Config.fromfile(SEGMENTOR)
    cfg.test_dataloader.dataset.data_root = str(demo_data['cityscapes'])
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.work_dir, cfg.log_level = str(tmp_path), 'ERROR'
    cfg.load_from = str(random_weights(SEGMENTOR, tmp_path / 'x.pth'))
    predict = EncoderDecoder.predict

    def with_loss(self, inputs, samples=None):
        outputs = predict(self, inputs, samples)
        return [*outputs, BaseDataElement(loss=dict(loss_x=inputs.mean()))]

    monkeypatch.setattr(EncoderDecoder, 'predict', with_loss)
    found = {}
    for name, loop in dict(
        stock=dict(type='TestLoop'),
        ours=dict(type='mmfeataug.AdversarialTestLoop', eps=[2.0, 0.0], steps=1, flag_images=0),
    ).items():
        cfg.test_cfg, cfg.experiment_name = loop, f'{tmp_path.name}-{name}'
        found[name] = Runner.from_cfg(copy.deepcopy(cfg)).test()
    assert 'test_loss' in found['stock']
    assert found['ours'] == found['stock']


def test_files_of_several_sizes(tmp_path):
    """A batch of them: its label maps are in the files' sizes, the images in one."""
    rng = np.random.default_rng(0)
    for name in ('img', 'lab'):
        (tmp_path / name).mkdir()
    for i, size in enumerate([(48, 90), (72, 60)]):
        cv2.imwrite(str(tmp_path / f'img/{i}.png'), rng.integers(0, 255, (*size, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f'lab/{i}.png'), rng.integers(0, 3, size, np.uint8))
    config = tmp_path / 'cfg.py'
    config.write_text(SIZES.format(base=str(SEGMENTOR), root=str(tmp_path)))
    args = [config, random_weights(config, tmp_path / 'x.pth'), '--work-dir', tmp_path]
    run('test.py', *args, '--out', tmp_path / 'x.pkl')
    run('test_adversarial.py', *args, '--eps', 0, 2, '--steps', 1, '--flag-images', 0)
    result = json.loads((tmp_path / 'adversarial/adversarial.json').read_text())
    clean, attacked = result['curve']
    (log,) = tmp_path.glob('test/2*/*.json')
    stock = json.loads(log.read_text())
    assert clean['metrics']['mIoU'] == pytest.approx(stock['mIoU'], abs=0.01)
    assert attacked['loss'] > clean['loss']


SIZES = """
_base_ = {base!r}
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=False),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(
        _delete_=True, type='BaseSegDataset', data_root={root!r}, img_suffix='.png',
        seg_map_suffix='.png', data_prefix=dict(img_path='img', seg_map_path='lab'),
        metainfo=dict(classes=tuple('abcdefghijklmnopqrs'), palette=[[i] * 3 for i in range(19)]),
        pipeline=pipeline,
    ),
)
"""
