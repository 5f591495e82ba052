# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What the loop under corruptions can beside a table: configs, a cache, other test sets."""

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmfeataug.evaluation import predictions_file, read_predictions
from mmfeataug.evaluation.corruptions.corruption import conditions_of
from tests.launch import launch
from tests.robustness_runs import ROOT, arguments, held, read, run

pytest.importorskip('imagecorruptions')


LOOP = """
_base_ = {base!r}
test_cfg = dict(
    _delete_=True, type='mmfeataug.CorruptionTestLoop', corruptions=['gaussian_noise'],
    severities=[1, 3], save_predictions=True,
)
"""


@pytest.mark.classification
def test_a_config_asks_for_it(classifier, extras, tmp_path):
    """tools/test.py makes the same table; the robustness tool says its own settings."""
    config = tmp_path / 'small.py'
    config.write_text(LOOP.format(base=str(classifier['config'])))
    args = [ROOT / 'tools/test.py', config, classifier['checkpoint'], '--work-dir', tmp_path / 'w']
    env = {'PYTHONPATH': str(extras)}
    result = launch(*args, env=env)
    assert result.returncode == 0, result.stderr[-3000:]
    assert '| metric | P | mPC |' in result.stdout + result.stderr
    path = tmp_path / 'w/test/robustness.json'
    assert held(json.loads(path.read_text())) == held(classifier['table'])
    assert len(list((tmp_path / 'w/test/predictions').glob('*.pkl'))) == 3
    again = launch(*args, env=env)
    assert again.returncode
    assert again.stderr.strip().splitlines()[-1].startswith(f'{path} is there already: go on')
    (tmp_path / 'w/test/predictions/gaussian_noise_1.pkl').unlink()
    resumed = launch(*args, '--cfg-options', 'test_cfg.resume=True', env=env)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert held(json.loads(path.read_text())) == held(classifier['table'])
    assert len(list((tmp_path / 'w/test/predictions').glob('*.pkl'))) == 3
    doubled = launch(*args, '--corruption', 'fog', '3', env=env)
    assert '--corruption, --out: the config asks for' in doubled.stderr


@pytest.mark.slow
@pytest.mark.classification
def test_the_package_s_own_tool(classifier, extras, tmp_path):
    config = tmp_path / 'small.py'
    config.write_text(LOOP.format(base=str(classifier['config'])))
    stock = Path(sys.modules['mmpretrain'].__file__).parent / '.mim/tools/test.py'
    args = [stock, config, classifier['checkpoint'], '--work-dir', tmp_path]
    result = launch(*args, env={'PYTHONPATH': str(extras)})
    assert result.returncode == 0, result.stderr[-3000:]
    path = tmp_path / 'robustness.json'
    assert held(json.loads(path.read_text())) == held(classifier['table'])


@pytest.mark.classification
def test_the_tool_on_such_a_config(classifier, tool, tmp_path):
    config = tmp_path / 'small.py'
    config.write_text(LOOP.format(base=str(classifier['config'])))
    case = dict(classifier, config=config, folder=tmp_path)
    assert held(run(tool, case, 'x')) == held(classifier['table'])
    assert not (tmp_path / 'x/predictions').exists()


def test_cache(case, tool, tmp_path, monkeypatch):
    """The same scores to the bit, and the second test corrupts nothing."""
    moved, cache = dict(case, folder=tmp_path), tmp_path / 'cache'
    args = ['--cache', str(cache), '--workers', '2']
    assert held(run(tool, moved, 'first', *args)) == held(case['table'])
    kept = sorted(path for path in cache.rglob('*') if path.is_file())
    assert {str(path.parent.relative_to(cache)) for path in kept} == {
        'gaussian_noise/1',
        'gaussian_noise/3',
    }
    monkeypatch.setattr(sys.modules['mmfeataug.datasets.corrupt'], 'corrupt_image', None)
    assert held(run(tool, moved, 'second', *args)) == held(case['table'])
    assert kept == sorted(path for path in cache.rglob('*') if path.is_file())


OTHER = """
_base_ = {base!r}
test_dataloader = dict(dataset=dict(indices={indices}))
test_evaluator = [dict(type='mmpretrain.SingleLabelMetric'), dict(type='mmengine.Checksum')]
"""


@pytest.mark.classification
def test_another_test_set(classifier, tool, tmp_path, capsys):
    night, case = tmp_path / 'night.py', dict(classifier, folder=tmp_path)
    night.write_text(OTHER.format(base=str(classifier['config']), indices=5))
    also = ['--also', f'night={night}']
    table = run(tool, case, 'x', *also, '--save-predictions')
    printed = capsys.readouterr().out
    assert table['also'].keys() == {'night'}
    scores = table['also']['night']
    assert {'single-label/precision', 'sum/all', 'sum/nan'} <= scores.keys()
    assert 'accuracy/top1' not in scores
    # Alone it has the same scores.
    alone = run(tool, dict(case, config=night), 'alone')
    assert scores == alone['clean']
    # It counts for nothing else.
    assert held(table) == held(classifier['table'])
    assert 'night' in printed
    with (tmp_path / 'x/robustness.csv').open() as file:
        clean, row, *_ = csv.DictReader(file)
    assert (row['corruption'], row['severity']) == ('night', '0')
    assert row['single-label/precision'] == repr(scores['single-label/precision'])
    assert (clean['single-label/precision'], row['accuracy/top1']) == ('', '')
    text = (tmp_path / 'x/robustness.md').read_text()
    assert '| metric | P | night | mPC |' in text
    assert f'| single-label/precision | - | {scores["single-label/precision"]:.2f} | - |' in text
    # Its predictions are judged by its evaluator.
    kept = ['--from-predictions', str(tmp_path / 'x/predictions'), *also]
    again = run(tool, case, 'again', *kept)
    assert (again['also'], held(again)) == (table['also'], held(table))


@pytest.mark.classification
def test_another_test_set_and_resume(classifier, tool, tmp_path):
    night, case = tmp_path / 'night.py', dict(classifier, folder=tmp_path)
    shutil.copytree(classifier['folder'] / 'plain', tmp_path / 'x')
    # One more is added to a table that is there.
    night.write_text(OTHER.format(base=str(classifier['config']), indices=5))
    also = ['--also', f'night={night}', '--resume']
    table = run(tool, case, 'x', *also)
    assert held(table) == held(classifier['table'])
    assert table['also'].keys() == table['made_with']['also'].keys() == {'night'}
    # It stays when it is not asked for, and is no other one under the name.
    assert run(tool, case, 'x', '--resume')['also'] == table['also']
    night.write_text(OTHER.format(base=str(classifier['config']), indices=4))
    with pytest.raises(SystemExit, match="another test set 'night'"):
        run(tool, case, 'x', *also)
    for wrong in ('fog=x.py', 'clean=x.py', 'a/b=x.py', 'fog_3=x.py', 'weather=x.py'):
        with pytest.raises(SystemExit, match='is no name for a test set'):
            run(tool, case, 'x', '--also', wrong)
    for wrong in (['night'], ['=x.py'], ['night=x.py', 'night=y.py']):
        with pytest.raises(SystemExit, match='give NAME=CONFIG, and each name once'):
            run(tool, case, 'x', *(word for one in wrong for word in ('--also', one)))
    with pytest.raises(SystemExit, match=r'night: nowhere\.py cannot be read'):
        run(tool, case, 'x', '--also', 'night=nowhere.py')
    night.write_text(
        OTHER.format(base=str(classifier['config']), indices=5).replace(
            'indices=5', "indices=5, data_root='nowhere'"
        )
    )
    with pytest.raises(SystemExit, match="--also night: test_dataloader: data_root='nowhere'"):
        run(tool, case, 'x', *also)


JUDGE = """
_base_ = {base!r}
test_evaluator = [{metric}]
"""
# Logits of segmentation, which the sum is over, are not kept.
JUDGES = {
    'detection': None,
    'classification': None,
    'segmentation': "dict(type='IoUMetric', iou_metrics=['mIoU', 'mDice'])",
}


@pytest.mark.parametrize(
    ('corruptions', 'severities', 'message'),
    [
        ('fog', [1], "corruptions='fog': give a list"),
        (['fog'], 3, 'severities=3: give a list'),
        (['fog'], [1.0], r'severities=\[1.0\]: give some of 1, 2'),
        (['fog'], [], r'severities=\[\]: give some of 1, 2'),
    ],
)
def test_conditions_that_cannot_be(corruptions, severities, message):
    with pytest.raises((TypeError, ValueError), match=message):
        conditions_of(corruptions, severities)


def test_from_predictions(case, tool, tmp_path, monkeypatch):
    """The same table, without images and model."""
    moved = dict(case, folder=tmp_path)
    table = run(tool, moved, 'kept', '--save-predictions', '--workers', '2')
    assert held(table) == held(case['table'])
    monkeypatch.setattr(tool, 'build_runner', None)
    folder = tmp_path / 'kept/predictions'
    check_order(case, folder)
    kept = ['--from-predictions', str(folder)]
    if JUDGES[case['task']] is None:
        assert held(run(tool, moved, 'again', *kept)) == held(table)
        # Its table is the one of the run.
        assert held(run(tool, moved, 'kept', *kept, '--resume')) == held(table)
    else:
        judge = tmp_path / 'judge.py'
        metric = JUDGES[case['task']]
        judge.write_text(JUDGE.format(base=str(case['config']), metric=metric))
        again = run(tool, dict(moved, config=judge, checkpoint=''), 'again', *kept)
        for metric in ('aAcc', 'mIoU', 'mAcc'):
            assert again['summary'][metric] == table['summary'][metric]
        assert again['clean']['mDice'] is not None
        assert 'sum/all' not in again['metrics']
    with pytest.raises(SystemExit, match=r'lacks predictions of 1 of 4 .*gaussian_noise 5'):
        run(tool, moved, 'y', *kept, '--severities', '1', '3', '5')
    with pytest.raises(SystemExit, match='leave out --cache'):
        run(tool, moved, 'y', *kept, '--cache', 'x')


def check_order(case, folder):
    """That of the data set."""
    cfg = Config.fromfile(case['config'])
    data = Runner.build_dataloader(cfg.test_dataloader).dataset
    paths = [data.get_data_info(i)['img_path'] for i in range(len(data))]
    for condition in (('clean', 0), ('gaussian_noise', 1)):
        found = read_predictions(predictions_file(folder, condition))
        assert [sample['img_path'] for sample in found] == paths
        assert 'seg_logits' not in found[0]


@pytest.mark.classification
def test_predictions_that_a_table_lacks(classifier, tool, tmp_path):
    """Are made by --resume; those of another checkpoint are refused."""
    case = dict(classifier, folder=tmp_path)
    shutil.copytree(classifier['folder'] / 'plain', tmp_path / 'x')
    table = run(tool, case, 'x', '--resume', '--save-predictions')
    assert held(table) == held(classifier['table'])
    files = sorted((tmp_path / 'x/predictions').iterdir())
    assert [f.name for f in files] == ['clean.pkl', 'gaussian_noise_1.pkl', 'gaussian_noise_3.pkl']
    kept = ['--from-predictions', str(tmp_path / 'x/predictions')]
    with pytest.raises(SystemExit, match=r'has predictions of .*random.pth, not of other.pth'):
        run(tool, dict(case, checkpoint='other.pth'), 'y', *kept)
    content = pickle.loads(files[1].read_bytes())
    content['head']['made_with']['size'] += 1
    content['samples'] = content['samples'][:3]
    files[1].write_bytes(pickle.dumps(content))
    with pytest.raises(SystemExit, match=r'gaussian_noise_1.pkl is of another checkpoint'):
        run(tool, case, 'y', *kept)
    files[1].write_bytes(b'nothing')
    with pytest.raises(SystemExit, match=r'gaussian_noise_1.pkl holds no'):
        run(tool, case, 'z', *kept)


# Models that do not look at images, for the scores that they must have.
ANSWERS = """
import hashlib

import torch
from mmdet.models import BaseDetector
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, LabelData, PixelData
from mmseg.models import BaseSegmentor

try:
    from mmpretrain.models import BaseClassifier
except ImportError:
    BaseClassifier = object


def guess(sample, size, classes):
    name = sample.img_path.rpartition('/')[2].encode()
    seed = int.from_bytes(hashlib.sha256(name).digest()[:4], 'little')
    return torch.randint(classes, size, generator=torch.Generator().manual_seed(seed))


def detect(kind, sample):
    truth = sample.gt_instances
    boxes = truth.bboxes
    boxes = getattr(boxes, 'tensor', boxes).clone()
    labels = truth.labels.clone()
    if kind == 'constant':
        boxes, labels = torch.tensor([[0.0, 0, 1, 1]]), torch.zeros(1, dtype=torch.long)
    elif kind == 'random':
        labels = guess(sample, labels.shape, 3)
    scores = torch.ones(len(boxes))
    sample.pred_instances = InstanceData(bboxes=boxes, labels=labels, scores=scores)


def segment(kind, sample):
    truth = sample.gt_sem_seg.data
    found = truth.long().clone()
    if kind == 'constant':
        found = torch.zeros_like(found)
    elif kind == 'random':
        found = guess(sample, found.shape, 19)
    sample.pred_sem_seg = PixelData(data=found)


def classify(kind, sample):
    found = sample.gt_label.long().clone()
    if kind == 'constant':
        found = torch.zeros_like(found)
    elif kind == 'random':
        found = guess(sample, found.shape, 3)
    sample.set_pred_label(found).set_pred_score(torch.eye(3)[found[0]])


def answer(base, respond):
    class Answer(base):
        def __init__(self, kind, data_preprocessor=None):
            # mmpretrain's classifiers have a default one.
            own = dict(data_preprocessor)
            own.setdefault('type', 'mmpretrain.ClsDataPreprocessor')
            super().__init__(data_preprocessor=own)
            self.kind = kind

        def forward(self, inputs, data_samples=None, mode='tensor'):
            for sample in data_samples:
                respond(self.kind, sample)
            return data_samples

    Answer.__abstractmethods__ = frozenset()
    Answer.__name__ = respond.__name__.capitalize()
    MODELS.register_module(module=Answer, force=True)


for base, respond in ((BaseDetector, detect), (BaseSegmentor, segment), (BaseClassifier, classify)):
    if base is not object:
        answer(base, respond)
"""
KNOWING = """
_base_ = {base!r}
custom_imports = dict(imports=['robustness_extras', 'robustness_answers'])
model = dict(_delete_=True, type='mmengine.{model}', kind={kind!r}{preprocessor})
"""
MAIN = {
    'detection': ('Detect', 'coco/bbox_mAP', 1.0),
    'segmentation': ('Segment', 'mIoU', 100.0),
    'classification': ('Classify', 'accuracy/top1', 100.0),
}


@pytest.mark.parametrize('kind', ['perfect', 'constant', 'random'])
def test_known_answers(case, tool, extras, tmp_path, kind):
    """Real evaluators on models that say the same of an image, clean or corrupted."""
    (extras / 'robustness_answers.py').write_text(ANSWERS)
    name, metric, full = MAIN[case['task']]
    stock = Config.fromfile(case['config'])
    own = stock.model.get('data_preprocessor')
    preprocessor = '' if own is None else f', data_preprocessor={own.to_dict()!r}'
    config, checkpoint = tmp_path / 'small.py', tmp_path / 'empty.pth'
    config.write_text(
        KNOWING.format(base=str(case['config']), model=name, kind=kind, preprocessor=preprocessor)
        + f'test_evaluator = {[stock.test_evaluator[0].to_dict()]!r}\n'
    )
    torch.save(dict(state_dict={}, meta={}), checkpoint)
    answered = dict(case, config=config, checkpoint=checkpoint, folder=tmp_path)
    table = run(tool, answered, 'x', '--save-predictions', '--severities', '3')
    summary = table['summary'][metric]
    value = summary['P']
    assert summary['mPC'] == value
    assert summary['worst'] == dict(corruption='gaussian_noise', value=value)
    assert summary['rPC'] == (1.0 if value else None)
    samples = list(read_predictions(tmp_path / 'x/predictions/clean.pkl'))
    if kind == 'perfect':
        assert value == pytest.approx(full)
        # Images that are not tested are not missed, whatever the annotation file has.
        few = '\ntest_dataloader = dict(dataset=dict(indices=2))\n'
        config.write_text(config.read_text() + few)
        wanted = ['--corruptions', 'fog', '--severities', '3']
        for out, source in (('few', '--save-predictions'), ('kept', '--from-predictions')):
            given = [source] if out == 'few' else [source, str(tmp_path / 'few/predictions')]
            table = run(tool, answered, out, *given, *wanted)
            assert table['summary'][metric]['P'] == pytest.approx(full)
    elif case['task'] == 'detection':
        assert value < (0.01 if kind == 'constant' else 0.7)
    elif case['task'] == 'classification':
        right = [bool(s['pred_label'] == s['gt_label']) for s in samples]
        assert 0 < sum(right) < len(right)
        assert value == pytest.approx(100 * sum(right) / len(right))
        error = table['mCE']['metrics'][metric]['mean_error']
        assert error == pytest.approx(100 - value)
    else:
        found = np.concatenate([s['pred_sem_seg']['data'].flatten() for s in samples])
        truth = np.concatenate([s['gt_sem_seg']['data'].flatten() for s in samples])
        found, truth = found[truth != 255], truth[truth != 255]
        ratios = [
            ((found == c) & (truth == c)).sum() / either.sum()
            for c in range(19)
            if (either := (found == c) | (truth == c)).any()
        ]
        assert value == pytest.approx(100 * np.mean(ratios), abs=0.006)
        assert value < 60


@pytest.mark.slow
def test_several_processes(classifier, tool, extras, tmp_path):
    """The same table and predictions in the same order, also where a batch is filled up."""
    config = tmp_path / 'small.py'
    config.write_text(
        f'_base_ = {str(classifier["config"])!r}\ntest_dataloader = dict(dataset=dict(indices=5))\n'
    )
    case = dict(classifier, config=config, folder=tmp_path)
    alone = run(tool, case, 'alone', '--save-predictions')
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--standalone']
    command += [str(ROOT / 'tools/test_robustness.py'), *arguments(case, 'both')]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{extras}:{ROOT}'}
    result = subprocess.run(
        [*command, '--save-predictions', '--launcher', 'pytorch'],
        cwd=tmp_path, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert held(read(case, 'both')) == held(alone)
    for name in ('clean.pkl', 'gaussian_noise_3.pkl'):
        folders = (tmp_path / out / 'predictions' for out in ('alone', 'both'))
        one, two = (read_predictions(folder / name) for folder in folders)
        assert len(one) == len(two) == 5
        for a, b in zip(one, two, strict=True):
            assert a['img_path'] == b['img_path']
            assert torch.equal(a['pred_score'], b['pred_score'])
