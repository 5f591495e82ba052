# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What a training step costs in stock steps, as hook and as tool."""

import importlib.util
import io
import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmfeataug.engine import Plan
from mmfeataug.hooks import CostHook, cost_hook
from mmfeataug.methods import DistortImages, PAdaIN

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/demo/afan_faster-rcnn_r18_fpn_demo-coco.py'


@pytest.fixture(scope='module')
def tool():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'tools'))
        path = ROOT / 'tools/analysis_tools/measure_cost.py'
        spec = importlib.util.spec_from_file_location('measure_cost_tool', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def test_rounds_have_to_be_there():
    with pytest.raises(ValueError, match='rounds=0'):
        CostHook(rounds=0)


def test_an_average_that_begins_late_is_measured(tool, tmp_path):
    """mmengine refuses a beginning behind the end of a training, and these are short."""
    cfg = Config.fromfile(CONFIG)
    cfg.custom_hooks.append(dict(type='EMAHook', begin_epoch=5, momentum=0.1))
    tool.only_measure(cfg, CostHook(1), str(tmp_path))
    assert cfg.custom_hooks[-1] == dict(type='EMAHook', momentum=0.1)


def test_stock_steps_divide_their_neighbours(tool, demo_data, tmp_path, monkeypatch):
    """A clock that charges 1 s for a stock step, 1.5 s without views and 3 s with them: what
    changes the clean pass acts wherever the schedule holds, views by its chance.
    """
    now, plans = [0.0], []
    monkeypatch.setattr(cost_hook, 'wall_time', lambda: now[0])

    def plan(*args, **kwargs):
        plans.append(Plan(*args, **kwargs))
        return plans[-1]

    monkeypatch.setattr(cost_hook, 'Plan', plan)
    advanced = []

    class Clocked(CostHook):
        def after_train_iter(self, runner, *args, **kwargs):
            plan = plans[-1]
            now[0] += (3.0 if plan.views else 1.5) if plan.enabled else 1.0
            advanced.append(runner.message_hub.get_scalar('train/feature_aug.active').current())
            super().after_train_iter(runner, *args, **kwargs)

    monkeypatch.setattr(tool, 'CostHook', Clocked)
    data = f'train_dataloader.dataset.data_root={demo_data["coco"]}/'
    also = f'val_dataloader.dataset.data_root={demo_data["coco"]}/'
    argv = [str(CONFIG), '--work-dir', str(tmp_path), '--rounds', '1', '--cfg-options', data, also]
    out = io.StringIO()
    schedule = [f'custom_hooks.0.{setting}' for setting in ('interval=4', 'begin=1', 'prob=0.5')]
    tool.main.__wrapped__(out, [*argv, *schedule])
    found = json.loads((tmp_path / 'cost.json').read_text())
    round_of = [(False, True), (True, False), (True, True)]
    assert [(p.enabled, p.views) for p in plans] == [*round_of * 3, round_of[0]]
    # So many of the steps had views indeed.
    assert advanced == [0, 0, 1 / 3, 1 / 4, 1 / 5, 1 / 3, 2 / 7, 1 / 4, 1 / 3, 3 / 10]
    # Without views nothing acts: what was measured there is noise.
    assert (found['seconds'], found['without_views'], found['with_views']) == (1.0, 1.0, 3.0)
    # 14 iterations, from the second on; views in every fourth, by chance.
    views = 13 / 14 / 4 / 2
    assert found['share'] == pytest.approx(views)
    assert found['stock_steps'] == pytest.approx(1 + 2.0 * views)
    assert 'stock steps: 3.00 where every method acts' in out.getvalue()


@pytest.mark.parametrize(
    ('kind', 'at', 'cost'),
    [(PAdaIN, 'backbone.layer1', 1.5), (DistortImages, 'inputs', 3.0)],
)
def test_what_acts_by_chance_is_timed_acting(
    tool, demo_data, tmp_path, monkeypatch, kind, at, cost
):
    """A clock that charges 3 s for a step in which the method acts. One that draws each image
    takes its time in all steps."""
    now, acted = [0.0], [0]
    monkeypatch.setattr(cost_hook, 'wall_time', lambda: now[0])
    transform = kind.transform

    def counted(self, *args):
        acted[0] += 1
        return transform(self, *args)

    monkeypatch.setattr(kind, 'transform', counted)

    class Clocked(CostHook):
        def after_train_iter(self, *args, **kwargs):
            now[0] += 3.0 if acted[0] else 1.0
            acted[0] = 0
            super().after_train_iter(*args, **kwargs)

    monkeypatch.setattr(tool, 'CostHook', Clocked)
    config = tmp_path / 'config.py'
    method = dict(type=f'mmfeataug.{kind.__name__}', at=at, prob=0.25)
    hook = dict(type='mmfeataug.FeatureAugHook', augmentations=[method])
    baseline = ROOT / 'configs/demo/faster-rcnn_r18_fpn_demo-coco.py'
    config.write_text(f'_base_ = {str(baseline)!r}\ncustom_hooks = [{hook!r}]\n')
    data = f'train_dataloader.dataset.data_root={demo_data["coco"]}/'
    also = f'val_dataloader.dataset.data_root={demo_data["coco"]}/'
    argv = [str(config), '--work-dir', str(tmp_path), '--rounds', '3', '--cfg-options', data, also]
    tool.main.__wrapped__(io.StringIO(), argv)
    found = json.loads((tmp_path / 'cost.json').read_text())
    assert (found['without_views'], found['with_views']) == (3.0, 3.0)
    assert found['stock_steps'] == cost
    assert found['prob'] == (cost - 1) / 2
