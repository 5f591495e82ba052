# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""tools/test_robustness.py on models with random weights, for the three tasks."""

import csv
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmfeataug.evaluation import CorruptionTestLoop, rows
from mmfeataug.evaluation.scores import read_scores
from mmfeataug.visualization import Painter
from tests.launch import launch
from tests.robustness_runs import ROOT, arguments, held, read, run

pytest.importorskip('imagecorruptions')


def test_table(case, capsys):
    table = case['table']
    assert table['task'] == case['task']
    assert table['config'] == 'small'
    assert list(table['corrupted']) == ['gaussian_noise']
    assert list(table['corrupted']['gaussian_noise']) == ['1', '3']
    sums = [s['sum/all'] for s in (table['clean'], *table['corrupted']['gaussian_noise'].values())]
    assert len(set(sums)) == 3
    assert 'sum/name' not in table['metrics']
    assert table['clean']['sum/nan'] is None
    assert 'sum/nan is undefined on these data' in table['notes']
    expected = {
        'detection': 'coco/bbox_mAP',
        'segmentation': 'mIoU',
        'classification': 'accuracy/top1',
    }[case['task']]
    assert expected in table['metrics']
    assert (table['mCE'] is None) == (case['task'] != 'classification')
    assert table['seconds'] > 0


def test_printed(case, tool, capsys):
    """The table alone goes to standard output, for people or as JSON; nothing is evaluated anew."""
    tool.main(arguments(case, 'plain', '--resume'))
    printed = capsys.readouterr()
    assert 'mPC' in printed.out
    assert 'Tables: ' in printed.out
    tool.main(arguments(case, 'plain', '--resume', '--json'))
    assert json.loads(capsys.readouterr().out) == read(case, 'plain')


def test_files_agree(case):
    table, folder = case['table'], case['folder'] / 'plain'
    with (folder / 'robustness.csv').open() as file:
        lines = [(r['corruption'], r['severity'], r['sum/all']) for r in csv.DictReader(file)]
    noise = table['corrupted']['gaussian_noise']
    assert lines == [
        ('clean', '0', repr(table['clean']['sum/all'])),
        ('gaussian_noise', '1', repr(noise['1']['sum/all'])),
        ('gaussian_noise', '3', repr(noise['3']['sum/all'])),
    ]
    text = (folder / 'robustness.md').read_text()
    for metric in table['metrics']:
        for line in rows(table, metric):
            assert '| ' + ' | '.join(line) + ' |' in text


def test_worker_processes_change_nothing(case, tool):
    assert held(run(tool, case, 'workers', '--workers', '2')) == held(case['table'])


def test_stopped_and_resumed(case, tool, monkeypatch):
    evaluate = CorruptionTestLoop.evaluate

    def stop(self, condition, *args):
        if condition == ('gaussian_noise', 3):
            raise KeyboardInterrupt
        return evaluate(self, condition, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CorruptionTestLoop, 'evaluate', stop)
        run(tool, case, 'stopped', '--resume')
    half = read(case, 'stopped')
    assert list(half['corrupted']['gaussian_noise']) == ['1']
    assert 'unfinished: 1 of 2' in half['notes'][0]
    with pytest.raises(SystemExit, match='--resume'):
        run(tool, case, 'stopped')
    assert held(run(tool, case, 'stopped', '--resume')) == held(case['table'])
    # Nothing is left to do.
    monkeypatch.setattr(CorruptionTestLoop, 'evaluate', None)
    assert held(run(tool, case, 'stopped', '--resume')) == held(case['table'])


@pytest.mark.classification
def test_killed_and_resumed(classifier, extras, tool):
    result = launch(
        *(ROOT / 'tools/test_robustness.py', *arguments(classifier, 'killed')),
        env={'TEST_DIE_AT': '3', 'PYTHONPATH': str(extras)},
    )
    assert result.returncode == -signal.SIGKILL, result.stderr[-3000:]
    assert list(read(classifier, 'killed')['corrupted']['gaussian_noise']) == ['1']
    assert held(run(tool, classifier, 'killed', '--resume')) == held(classifier['table'])


@pytest.mark.classification
def test_refuses_another_run(classifier, tool):
    with pytest.raises(SystemExit, match='another text of the config'):
        run(tool, classifier, 'plain', '--resume', '--cfg-options', 'test_dataloader.batch_size=1')
    stat = os.stat(classifier['checkpoint'])
    os.utime(classifier['checkpoint'], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(SystemExit, match="checkpoint's time of modification"):
        run(tool, classifier, 'plain', '--resume')
    os.utime(classifier['checkpoint'], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    path = classifier['folder'] / 'named' / 'robustness.json'
    path.parent.mkdir()
    table = json.loads((classifier['folder'] / 'plain' / 'robustness.json').read_text())
    del table['corrupted']['gaussian_noise']['3'], table['clean']['accuracy/top1']
    table['metrics'].remove('accuracy/top1')
    path.write_text(json.dumps(table))
    with pytest.raises(SystemExit, match='accuracy/top1 is new'):
        run(tool, classifier, 'named', '--resume')


@pytest.mark.classification
def test_reference(classifier, tool, monkeypatch):
    monkeypatch.setattr(CorruptionTestLoop, 'evaluate', None)
    path = classifier['folder'] / 'plain' / 'robustness.json'
    assert case_error(classifier['table']).keys() == {'mean_error', 'errors'}
    table = run(tool, classifier, 'plain', '--resume', '--reference', str(path))
    assert case_error(table)['mCE'] == 1.0
    assert table['mCE']['reference']['config'] == 'small'
    with pytest.raises(SystemExit, match='beside small, which would be lost'):
        run(tool, classifier, 'plain', '--resume')
    with pytest.raises(SystemExit, match=r'lacks 1 of 3 conditions \(gaussian_noise 5\)'):
        run(tool, classifier, 'x', '--reference', str(path), '--severities', '1', '3', '5')
    with pytest.raises(SystemExit, match=r"'nowhere\.json' is no file"):
        run(tool, classifier, 'x', '--reference', 'nowhere.json')


def case_error(table):
    return table['mCE']['metrics']['accuracy/top1']


@pytest.mark.classification
def test_what_cannot_start(classifier, tool, monkeypatch):
    with pytest.raises(SystemExit, match=r'did you mean .*defocus_blur'):
        run(tool, classifier, 'never', '--corruptions', 'defocusblur')
    # Before the Runner writes its config.
    assert not (classifier['folder'] / 'never').exists()
    with pytest.raises(SystemExit, match='is no file'):
        run(tool, {**classifier, 'checkpoint': 'nowhere.pth'}, 'x')
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match='package kornia'):
        patch.setitem(sys.modules, 'kornia', None)
        run(tool, classifier, 'x', '--corruptions', 'unseen')
    monkeypatch.setitem(sys.modules, 'imagecorruptions', None)
    with pytest.raises(SystemExit, match=r'pip install\s+mmfeataug\[robustness\]'):
        run(tool, classifier, 'x')


@pytest.mark.classification
def test_a_checkpoint_that_does_not_fit(classifier, tool, tmp_path):
    """mmengine prints that among the rest, which is not shown, and goes on."""
    whole = torch.load(classifier['checkpoint'], weights_only=False)['state_dict']
    last = [key for key in whole if 'fc' in key]
    lacking = {key: value for key, value in whole.items() if key not in last}
    other = {f'other.{key}': value for key, value in whole.items()}
    for name, state in (('lacking', lacking), ('other', other)):
        torch.save(dict(state_dict=state), tmp_path / f'{name}.pth')
    case = dict(classifier, folder=tmp_path, checkpoint=tmp_path / 'lacking.pth')
    with pytest.warns(UserWarning, match=f'{len(last)} of .*such as {last[0]}.*first values'):
        table = run(tool, case, 'x', '--corruptions', 'fog', '--severities', '1')
    assert 'these keep their first values' in table['notes'][0]
    with pytest.raises(SystemExit, match='tensors of the model are not in the checkpoint'):
        run(tool, {**case, 'checkpoint': tmp_path / 'other.pth'}, 'y')
    options = dict(load_from=str(tmp_path / 'other.pth'), work_dir=str(tmp_path / 'z'))
    cfg = Config.fromfile(case['config'])
    cfg.merge_from_dict({**options, 'test_cfg.type': 'mmfeataug.AdversarialTestLoop'})
    with pytest.raises(ValueError, match='tensors of the model are not in the checkpoint'):
        Runner.from_cfg(cfg).test()
    with pytest.raises(ValueError, match='tensors of the model are not in the checkpoint'):
        Painter(cfg, tmp_path / 'other.pth')


@pytest.mark.classification
@pytest.mark.parametrize('fault', ['broken', 'small'])
def test_a_bad_image_is_named(classifier, tool, tmp_path, fault):
    data = Path(Config.fromfile(classifier['config']).test_dataloader.dataset.data_root)
    shutil.copytree(data, tmp_path / 'data')
    images = sorted((tmp_path / 'data' / 'val').rglob('*.*g'))
    bad = images[len(images) // 2]
    case = dict(classifier, folder=tmp_path, config=tmp_path / 'bad.py')
    resize = "[dict(type='LoadImageFromFile'), dict(type='Resize', scale=(48, 48)), "
    case['config'].write_text(
        f'_base_ = {str(classifier["config"])!r}\n'
        f'test_pipeline = {resize}dict(type="PackInputs")]\n'
        f'test_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline, '
        f'data_root={str(tmp_path / "data")!r}))\n'
    )
    if fault == 'small':
        cv2.imwrite(str(bad), cv2.resize(cv2.imread(str(bad)), (20, 40)))
        done, where = {'gaussian_noise': {}}, 'gaussian_noise 1'
    else:
        tool.main([*arguments(case, 'x', '--severities', '1')])
        bad.write_bytes(b'no image')
        done, where = {'gaussian_noise': {'1': 0}}, 'gaussian_noise 3'
    with pytest.raises(SystemExit) as error:
        run(tool, case, 'x', '--resume')
    assert f'{where}: {bad} cannot be used' in str(error.value)
    kept = read(case, 'x')
    assert kept['clean']['accuracy/top1'] is not None
    assert kept['corrupted'].get('gaussian_noise', {}).keys() == done['gaussian_noise'].keys()


def test_numbers_out_of_what_evaluators_return():
    clean = {'coco/bbox_mAP': 0.4, 'coco/bbox_mAP_s': None}
    metrics = {
        'coco/bbox_mAP': np.float64(0.25),
        'coco/bbox_mAP_s': -1.0,
        'coco/bbox_mAP_copypaste': '0.25 -1.0',
        'per_class': [1.0, 2.0],
        'tensor': torch.tensor(2.5),
        'lost': np.float32('nan'),
        'flag': True,
    }
    scores = read_scores(metrics, clean, 'detection', found=3)
    assert scores == {
        'coco/bbox_mAP': 0.25,
        'coco/bbox_mAP_s': None,
        'tensor': 2.5,
        'lost': None,
    }
    # Without a single box CocoMetric returns nothing.
    assert read_scores({}, clean, 'detection', found=0) == {'coco/bbox_mAP': 0.0}
    assert read_scores({}, clean, 'detection', found=1) == {}
    assert read_scores({'x': -1}, None, 'classification', found=0) == {'x': -1.0}
