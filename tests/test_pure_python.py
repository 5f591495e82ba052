# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Configs in pure Python (``read_base``, types that are classes, no default scope): every tool
gives what it gives on the same config as text."""

import json
import re
from pathlib import Path

import pytest
import torch

from mmfeataug.utils.configs import data_sets, scope_of, set_workers, type_name
from mmfeataug.visualization.report import page
from tests.launch import launch

ROOT = Path(__file__).resolve().parents[1]
RUNTIME = """
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.visualization import DetLocalVisualizer
from mmengine.hooks import CheckpointHook, DistSamplerSeedHook, IterTimerHook, LoggerHook
from mmengine.runner import EpochBasedTrainLoop, LogProcessor, TestLoop, ValLoop
from mmengine.visualization import LocalVisBackend

default_scope = None
default_hooks = dict(
    timer=dict(type=IterTimerHook),
    logger=dict(type=LoggerHook, interval=1),
    checkpoint=dict(type=CheckpointHook),
    sampler_seed=dict(type=DistSamplerSeedHook),
    visualization=dict(type=DetVisualizationHook),
)
visualizer = dict(
    type=DetLocalVisualizer, vis_backends=[dict(type=LocalVisBackend)], name='visualizer'
)
log_processor = dict(type=LogProcessor, window_size=5, by_epoch=True)
randomness = dict(seed=1)
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
"""
CONFIG = """
from mmcv.transforms import LoadImageFromFile
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler
from mmengine.optim import OptimWrapper
from torch.optim import SGD

from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.evaluation import CocoMetric
from mmdet.models import FCOS, FPN, DetDataPreprocessor, FCOSHead, ResNet
from mmfeataug.hooks import FeatureAugHook, FeatureAugVisualizationHook
from mmfeataug.methods import AFAN, AdvBN
from mmfeataug.models import AugmentedModel

with read_base():
    from .runtime import *

model = dict(
    type=AugmentedModel,
    of=FCOS,
    augmentations=[dict(type=AdvBN, at='backbone.layer3', bn='separate', steps=1, weight=0.2)],
    data_preprocessor=dict(
        type=DetDataPreprocessor, mean=[120, 115, 105], std=[60, 60, 60], pad_size_divisor=32
    ),
    backbone=dict(
        type=ResNet, depth=18, base_channels=8, norm_cfg=dict(type='BN'), norm_eval=False
    ),
    neck=dict(type=FPN, in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5),
    bbox_head=dict(
        type=FCOSHead, num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1,
        norm_cfg=None, strides=[4, 8, 16, 32, 64],
    ),
    test_cfg=dict(
        nms_pre=50, score_thr=0.0, min_bbox_size=0, max_per_img=20,
        nms=dict(type='nms', iou_threshold=0.5),
    ),
)
load, resize = dict(type=LoadImageFromFile), dict(type=Resize, scale=(96, 64), keep_ratio=True)
annotations, pack = dict(type=LoadAnnotations, with_bbox=True), dict(type=PackDetInputs)
pack_test = dict(
    type=PackDetInputs,
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
)
root = {root!r}
classes = dict(classes=('person', 'car', 'bus'))
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(
        type=CocoDataset, data_root=root, metainfo=classes, data_prefix=dict(img='train2017/'),
        ann_file='annotations/instances_train2017.json',
        pipeline=[load, annotations, resize, pack],
    ),
)
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=CocoDataset, data_root=root, metainfo=classes, data_prefix=dict(img='val2017/'),
        ann_file='annotations/instances_val2017.json', test_mode=True,
        pipeline=[load, resize, annotations, pack_test],
    ),
)
val_dataloader = test_dataloader
test_evaluator = dict(
    type=CocoMetric, ann_file=root + '/annotations/instances_val2017.json', metric='bbox'
)
val_evaluator = test_evaluator
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.01))
custom_hooks = [
    dict(
        type=FeatureAugHook,
        clean_weight=0.5,
        augmentations=[dict(type=AFAN, at='backbone.layer2', gamma=0.1, weight=0.3)],
    ),
    dict(type=FeatureAugVisualizationHook, interval=2),
]
"""
OURS = re.findall(r'from mmfeataug\.\w+ import (.+)', CONFIG)


def as_text(source):
    """The same config with names for types."""
    body = re.sub(r'^(from|import|with|    from) .*$', '', source, flags=re.MULTILINE)
    body = re.sub(r'\b(type|of)=([A-Z]\w*)', r"\1='\2'", body)
    for name in ', '.join(OURS).split(', '):
        body = body.replace(f"type='{name}'", f"type='mmfeataug.{name}'")
    return body.replace('default_scope = None', "default_scope = 'mmdet'")


def run(script, *args, cwd):
    result = launch(ROOT / 'tools' / script, *args, cwd=cwd)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope='module')
def twins(demo_data, tmp_path_factory):
    """Folders of the config as text and in pure Python, trained for an epoch."""
    source = CONFIG.replace('{root!r}', repr(str(demo_data['coco'])))
    texts = dict(text=as_text(RUNTIME + source), pure=source)
    folders = []
    for name, text in texts.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / 'cfg.py').write_text(text)
        (folder / 'runtime.py').write_text(RUNTIME)
        (folder / '__init__.py').write_text('')
        run('train.py', 'cfg.py', cwd=folder)
        folders.append(folder)
    assert "default_scope = 'mmdet'" in texts['text']
    assert 'import' not in texts['text']
    return folders


CHECKPOINT = 'work_dirs/cfg/epoch_1.pth'


def test_trained_alike(twins):
    text, pure = (
        torch.load(folder / CHECKPOINT, map_location='cpu', weights_only=False)['state_dict']
        for folder in twins
    )
    assert text.keys() == pure.keys()
    assert any('aux_bn' in key for key in pure)
    assert all(pure[key].equal(value) for key, value in text.items())
    drawn = [sorted(p.name for p in f.glob('work_dirs/**/vis_image/*')) for f in twins]
    assert drawn[0] == drawn[1] != []


def results(path):
    """A JSON file without times and paths."""
    loaded = json.loads(path.read_text())
    return {k: v for k, v in loaded.items() if k not in ('seconds', 'made_with', 'config')}


TOOLS = {
    'test.py': ('--show-dir', 'shown', '--out', 'found.pkl', '--corruption', 'fog', 3, '--aux-bn'),
    'test_robustness.py': ('--corruptions', 'fog', '--severities', 1),
    'test_adversarial.py': ('--eps', 0, 1, '--steps', 1, '--flag-images', 0),
    'analysis_tools/visualize_features.py': ('0', '--out', 'drawn', '--corruption', 'fog', 3),
    'analysis_tools/loss_surface.py': ('--at', 'backbone.layer2', '--points', 3),
}
WRITTEN = {
    'test.py': 'work_dirs/cfg/test/*/shown/*',
    'test_robustness.py': 'work_dirs/cfg/robustness/robustness.json',
    'test_adversarial.py': 'work_dirs/cfg/adversarial/adversarial.json',
    'analysis_tools/visualize_features.py': 'drawn/*',
    'analysis_tools/loss_surface.py': 'work_dirs/cfg/loss_surface.png',
}


@pytest.mark.parametrize('tool', TOOLS)
def test_tools_alike(twins, tool):
    """They write the same pictures and the same results, byte by byte."""
    if 'fog' in TOOLS[tool]:
        pytest.importorskip('imagecorruptions')
    files = []
    for folder in twins:
        run(tool, 'cfg.py', CHECKPOINT, *TOOLS[tool], cwd=folder)
        files.append(sorted(folder.glob(WRITTEN[tool])))
    text, pure = files
    assert [p.name for p in text] == [p.name for p in pure] != []
    for ours, theirs in zip(pure, text, strict=True):
        if ours.suffix == '.json':
            assert results(ours) == results(theirs)
        else:
            assert ours.read_bytes() == theirs.read_bytes(), ours.name


def test_list_taps_alike(twins):
    tool = 'analysis_tools/list_taps.py'
    tables = [json.loads(run(tool, 'cfg.py', '--repeats', 1, '--json', cwd=f)) for f in twins]
    text, pure = ([(row['at'], row['output shapes']) for row in t['rows']] for t in tables)
    assert text == pure
    run(tool, 'cfg.py', '--repeats', 1, '--size', 64, 64, cwd=twins[1])


def test_a_report_of_both(twins, tmp_path):
    text, pure = (folder / 'work_dirs/cfg' for folder in twins)
    args = ['--out', tmp_path, '--examples', 1, '--corruption', 'fog', 3]
    run('analysis_tools/report.py', f'text={text}', f'pure={pure}', *args, cwd=tmp_path)
    found = (tmp_path / page.PAGE).read_text()
    assert 'data-task="detection"' in found
    assert 'unknown task' not in found
    assert 'is not shown' not in found
    # The same data, though one config calls its data set by name and one by its path.
    assert 'is written otherwise' not in found
    assert 'cannot be read' not in found


class Resize:
    pass


def test_names_of_types():
    kinds = ('Resize', 'mmdet.Resize', 'mmdet.datasets.transforms.Resize', Resize)
    assert [type_name(dict(type=kind)) for kind in kinds] == ['Resize'] * 4
    assert type_name({}) == ''


def test_scope_without_default_scope():
    from mmdet.models import RetinaNet

    class Mine(RetinaNet):
        pass

    for model in (
        dict(type=RetinaNet),
        dict(type=Mine),
        dict(type='mmdet.models.RetinaNet'),
        dict(type='mmfeataug.models.AugmentedModel', of=RetinaNet),
        dict(type='mine.Net', parts=[dict(type='mmdet.models.ResNet')]),
    ):
        assert scope_of(dict(default_scope=None, model=model)) == 'mmdet'
    assert scope_of(dict(default_scope='mmseg', model=dict(type=RetinaNet))) == 'mmseg'
    assert scope_of(dict(model=dict(type='mine.Net'))) is None
    assert scope_of({}) is None


def test_data_sets_that_wrap_others():
    inner = [dict(type='A'), dict(type='B')]
    joined = dict(type='ConcatDataset', datasets=inner)
    found = data_sets(dict(type='RepeatDataset', dataset=joined), 'x')
    assert found == {'x.dataset.datasets.0': inner[0], 'x.dataset.datasets.1': inner[1]}
    assert data_sets(None) == {}


def test_no_worker_setting_without_workers():
    from torch.utils.data import DataLoader

    forked = dict(persistent_workers=True, prefetch_factor=4, multiprocessing_context='fork')
    loader = dict(num_workers=2, batch_size=1, **forked)
    with pytest.raises(ValueError, match=r'multiprocessing|prefetch_factor|persistent'):
        DataLoader([0], **{**loader, 'num_workers': 0})
    set_workers(loader)
    assert loader == dict(num_workers=0, batch_size=1)
    DataLoader([0], **loader)
