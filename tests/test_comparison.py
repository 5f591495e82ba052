# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The comparison: its grid can be run, its results are those of the grid, its tables are in the
docs.
"""

import json
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.testing import assert_close

from benchmarks.comparison import diagnosis, memory, report, run
from benchmarks.comparison.grid import ARMS, LABELS, STUDIES, TESTBEDS, Arm
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.corruptions import ALL

RESULTS = sorted(run.RESULTS.glob('*/*/*.json'))
SPECIFIED = ('testbed', 'arm', 'seed', 'part', 'settings')


@pytest.mark.parametrize('bed', TESTBEDS)
def test_every_arm_is_a_config(bed):
    baseline = run.config_of(run.specification(bed, 'baseline', 0, 'test'))
    seen = {}
    for name in ARMS:
        cfg = run.config_of(run.specification(bed, name, 0, 'test'))
        for hook in cfg.custom_hooks:
            for augmentation in hook.get('augmentations', ()):
                AUGMENTATIONS.build(augmentation)
        text = str(cfg.to_dict())
        if name != 'baseline':
            assert text != str(baseline.to_dict()), name
        seen.setdefault(text, []).append(name)
    # Finalists have short names for what the grid of strengths has, too.
    assert all(len(names) <= 2 for names in seen.values()), seen


def test_settings_with_two_names_have_one_label():
    assert report.label('afan-network-middle-0.25') == report.label('afan') == 'A-FAN'
    assert report.label('afan-network-early-0.1') == 'afan-network-early-0.1'
    for bed, arms in STUDIES['tune'].arms.items():
        settings = [str(run.config_of(run.specification(bed, a, 0, 'tune'))) for a in arms]
        assert len(set(settings)) == len(arms), 'no setting is trained twice'


def test_studies_name_arms():
    for study in STUDIES.values():
        for bed, arm, _ in study.runs():
            assert bed in TESTBEDS
            assert arm in ARMS
    assert set(LABELS) <= set(ARMS)


def test_settings_are_chosen_on_other_images():
    for bed in TESTBEDS.values():
        assert set(range(*bed.tune)).isdisjoint(range(*bed.test))


@pytest.mark.parametrize(
    ('block', 'arm'),
    [('recommended', 'combined+afan-fifth'), ('afan', 'afan'), ('distort-images', 'combined')],
)
def test_blocks_are_what_was_compared(block, arm):
    """But for the place, which the network decides."""
    (hook,) = Config.fromfile(run.ROOT / f'configs/_base_/methods/{block}.py').custom_hooks
    found, wanted = (
        {a['type']: {'prob': 1.0, **a, 'at': ''} for a in each}
        for each in (hook.augmentations, ARMS[arm].augmentations)
    )
    assert found == wanted
    assert hook.get('prob', 1.0) == ARMS[arm].hook.get('prob', 1.0)


def test_longer_is_longer():
    arm = replace(ARMS['baseline'], length=1.5)
    spec = run.specification('bccd', 'baseline', 0, 'test')
    spec['settings'] = json.loads(json.dumps(vars(arm)))
    cfg = run.config_of(spec)
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.param_scheduler[-1].end == 12


@pytest.mark.parametrize('path', RESULTS, ids=lambda p: f'{p.parent.name}-{p.stem}')
def test_a_result_can_be_repeated(path):
    """Its settings are those that the grid has under its name."""
    result = json.loads(path.read_text())
    names = [result[key] for key in ('testbed', 'arm', 'seed', 'part')]
    expected = run.specification(*names)
    assert {key: result[key] for key in SPECIFIED} == expected
    assert run.result_of(expected) == path
    assert len(result['figures']['corrupted']) == 24


def test_docs_show_the_results():
    """``make comparison-report`` changes nothing."""
    for page in report.pages():
        text = page.read_text()
        assert report.rendered(text) == text, f'{page.name}: run make comparison-report'


def test_tables(tmp_path, monkeypatch):
    """Means, and differences seed by seed."""
    monkeypatch.setattr(report, 'RESULTS', tmp_path)
    monkeypatch.setattr(report, 'COSTS', tmp_path / 'costs.json')
    report.COSTS.write_text(json.dumps({'bccd': {'afan': 1.594}}))
    arms = (('baseline', 0.0), ('afan', 0.02))
    for part, (arm, gain) in product(('tune', 'test'), arms):
        for seed in range(6):
            clean = 0.8 + 0.01 * seed + gain
            corrupted = dict.fromkeys(ALL, 0.5)
            figures = dict(clean=clean, mPC=clean - 0.2, corrupted=corrupted)
            path = tmp_path / part / 'bccd' / f'{arm}-{seed}.json'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(dict(arm=arm, seed=seed, figures=figures)))
    first, row = report.against('bccd', 'baseline').splitlines()[2:]
    assert first == '| baseline (6 seeds) | - | 82.5 | 62.5 | 50.0 | 50.0 |'
    assert row.startswith('| A-FAN | 1.59 | **+2.0')
    assert 'p 0.031, 6 pairs**' in row
    first, row = report.tune('bccd').splitlines()[2:]
    assert first.startswith('| baseline | 6 | 82.5 | 62.5 | 50.0 |')
    monkeypatch.setattr(report, 'PICTURED', dict(bccd=('detector', 'mAP50')))
    head, _, first, *rows = report.summary().splitlines()
    assert head == '|  | cost | detector: clean | mPC | far |'
    assert first == '| baseline, scores | 1.00 | 82.5 | 62.5 | 50.0 |'
    assert '| A-FAN | 1.59 | **+2.0** | **+2.0** | +0.0 |' in rows
    assert '| NP | - | - | - | - |' in rows
    page = 'a\n<!-- comparison: bccd-families -->\nold\n<!-- /comparison -->\nb'
    assert '| A-FAN | 1.59 | +0.0 |' in report.rendered(page)
    assert 'old' not in report.rendered(page)


def test_few_pairs_have_no_interval():
    assert report.words(report.paired_difference([1.4, 3.4])) == '+2.4 (2)'
    assert report.brief(report.paired_difference([1.4])) == '+1.4 (1)'


def test_pairs_are_of_one_device():
    one, other = dict(versions=dict(device='a')), dict(versions=dict(device='b'))
    assert report.alike(one, one)
    assert not report.alike(one, other)
    more = dict(versions=dict(device='a', numpy='2'))
    assert report.alike(one, more), 'what one of them does not say is not held against it'


def test_other_settings_start_anew(tmp_path, monkeypatch):
    """What a killed run left behind is gone on with only if it is the same run."""
    monkeypatch.setattr(run.subprocess, 'Popen', lambda *args, **kwargs: None)
    spec = run.specification('bccd', 'afan', 0, 'test')
    kept = tmp_path / 'run' / 'train' / 'epoch_4.pth'
    run.start_one(spec, tmp_path / 'run')
    kept.parent.mkdir()
    kept.touch()
    run.start_one(spec, tmp_path / 'run')
    assert kept.exists()
    spec['settings']['augmentations'][0]['gamma'] = 0.3
    run.start_one(spec, tmp_path / 'run')
    assert not kept.exists()


def test_unknown_table(monkeypatch):
    with pytest.raises(KeyError, match='nothing'):
        report.rendered('<!-- comparison: nothing -->\n<!-- /comparison -->')


def test_arms_are_plain_data():
    """So that a JSON holds all of one."""
    for name, arm in ARMS.items():
        spec = run.specification('bccd', name, 0, 'test')
        again = Arm(**spec['settings'])
        assert json.loads(json.dumps(vars(again))) == json.loads(json.dumps(vars(arm))), name


def test_parts_of_what_noise_does():
    clean, noisy = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8) * 2 + 1
    mean, std = diagnosis.moments(clean)
    assert_close(diagnosis.moments(diagnosis.restored(clean, noisy)), (mean, std))
    moved = diagnosis.shifted(clean, noisy)
    assert_close(diagnosis.moments(moved), (diagnosis.moments(noisy)[0], std))
    assert_close(moved - clean, (diagnosis.moments(noisy)[0] - mean).expand_as(clean))


def test_statistics_of_the_batch_leave_no_trace():
    norm = nn.BatchNorm2d(3).eval()
    batch = torch.randn(4, 3, 5, 5) + 2
    before = norm(batch)
    with diagnosis.batch_statistics(norm):
        assert norm(batch).mean().abs() < 1e-5
    assert_close(norm(batch), before, rtol=0, atol=0)


def test_backbone_channels_last_and_features_contiguous():
    """mmcv's RoIAlign reads other layouts as garbage on a CPU."""
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    images = torch.randn(2, 3, 8, 8)
    wanted = model.backbone(images)
    shown = []
    model.backbone[0].register_forward_hook(lambda _, __, output: shown.append(output))
    memory.ChannelsLastHook().before_run(SimpleNamespace(model=model))
    features = model.backbone(images)
    assert shown[0].is_contiguous(memory_format=torch.channels_last)
    assert_close(torch.stack(features), wanted)
    assert all(feature.is_contiguous() for feature in features)
