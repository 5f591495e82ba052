# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Kept predictions, tested on any of their images by the real evaluators."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope

from mmfeataug.evaluation import by_task, compare_tables, image_differences, read_runs
from mmfeataug.evaluation.comparison import image_bootstrap
from mmfeataug.evaluation.comparison.image_bootstrap import Resampled
from mmfeataug.evaluation.comparison.significance import calls
from mmfeataug.evaluation.predictions import Predictions, read_predictions
from mmfeataug.evaluation.scores import count_tested_only
from tests.test_evaluation.test_runs import make_run, table

CFG = Config(dict(test_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU'])))
CLASSES = dict(classes=('a', 'b'))


def maps(wrong, images=6):
    """Label maps of which image i has ``wrong[i]`` wrong pixels of 16."""
    samples = []
    for i in range(images):
        truth = torch.arange(16).reshape(1, 4, 4) % 2
        predicted = truth.clone()
        predicted.view(-1)[: wrong[i]] = 1 - predicted.view(-1)[: wrong[i]]
        fields = dict(gt_sem_seg=dict(data=truth), pred_sem_seg=dict(data=predicted))
        samples.append(dict(fields, img_path=f'dir/{i}.png'))
    return Predictions(samples, {}, CLASSES)


def boxes(shift, images=4):
    """One box per image, found ``shift[i]`` pixels beside its place."""
    samples = []
    for i in range(images):
        box = [10.0 + i, 10.0, 30.0 + i, 30.0]
        found = torch.tensor([[box[0] + shift[i], *box[1:3], box[3]]])
        instances = dict(bboxes=found, scores=torch.tensor([0.9 - 0.1 * i]))
        instances['labels'] = torch.tensor([i % 2])
        truth = dict(bbox=box, bbox_label=i % 2, ignore_flag=0)
        samples.append(
            dict(pred_instances=instances, img_id=i, ori_shape=(64, 64), instances=[truth])
        )
    return Predictions(samples, {}, CLASSES)


def coco_file(folder, predictions):
    images = [dict(id=s['img_id'], width=64, height=64) for s in predictions]
    annotations = [
        dict(id=i + 1, image_id=i, category_id=i % 2, iscrowd=0, area=400.0, bbox=[*b[:2], 20, 20])
        for i, b in enumerate(s['instances'][0]['bbox'] for s in predictions)
    ]
    categories = [dict(id=0, name='a'), dict(id=1, name='b')]
    path = folder / 'truth.json'
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return str(path)


def test_an_annotation_file_of_more_images(tmp_path):
    """Those that were not tested have not missed their objects."""
    init_default_scope('mmdet')
    every = boxes([0, 0, 0, 0])
    evaluator = dict(type='CocoMetric', metric='bbox', ann_file=coco_file(tmp_path, every))
    assert Predictions(every[:2], {}, CLASSES).evaluate(evaluator)['coco/bbox_mAP_50'] == 1.0


@pytest.mark.parametrize('file', [True, False], ids=['file', 'no file'])
def test_copies_of_an_image_count_in_coco(tmp_path, file):
    init_default_scope('mmdet')
    predictions = boxes([0, 0, 14, 0])
    evaluator = dict(type='CocoMetric', metric='bbox')
    evaluator['ann_file'] = coco_file(tmp_path, predictions) if file else None
    test = Resampled(evaluator, predictions)

    def score(*numbers):
        return test.evaluate(np.array(numbers))['coco/bbox_mAP_50']

    whole = score(0, 1, 2, 3)
    assert score(0, 1) == score(3, 0) == 1.0
    # Of class a one box in two is right, and comes first.
    assert whole == pytest.approx((0.505 + 1) / 2, abs=0.01)
    # Two of three, then one of three.
    assert score(0, 0, 2) == pytest.approx(0.67, abs=0.01)
    assert score(0, 2, 2) == pytest.approx(0.34, abs=0.01)
    assert score(0, 1, 2, 3) == whole


@pytest.mark.parametrize('kind', ['CocoMetric', 'IoUMetric'])
def test_files_of_the_test_stay(tmp_path, kind):
    """Evaluators that write what they were shown would write over it what was drawn."""
    init_default_scope('mmdet' if kind == 'CocoMetric' else 'mmseg')
    (tmp_path / 'dets.bbox.json').write_text('of the test')
    if kind == 'CocoMetric':
        own, predictions = (
            dict(metric='bbox', outfile_prefix=str(tmp_path / 'dets')),
            boxes([0] * 4),
        )
    else:
        own, predictions = dict(iou_metrics=['mIoU'], output_dir=str(tmp_path)), maps([0] * 6)
    Resampled(dict(type=kind, **own), predictions).evaluate(np.array([0, 0, 1]))
    assert [p.read_text() for p in tmp_path.iterdir()] == ['of the test']


def test_images_of_segmentation():
    init_default_scope('mmseg')
    test = Resampled(dict(type='IoUMetric', iou_metrics=['mIoU']), maps([0, 4, 0, 0, 0, 0]))
    assert test.evaluate(np.array([0, 2, 3]))['mIoU'] == 100.0
    one, two = (test.evaluate(np.array(n))['mIoU'] for n in ([1], [1, 1]))
    assert one == two == pytest.approx(60.0)
    assert one < test.evaluate(np.array([1, 0]))['mIoU'] < 100
    assert test.names == [f'dir/{i}.png' for i in range(6)]


@pytest.mark.parametrize('key', ['img_id', 'sample_idx'])
def test_images_without_a_path_have_a_number(key):
    init_default_scope('mmseg')
    samples = [{**sample, 'img_path': None, key: i} for i, sample in enumerate(maps([0] * 6))]
    evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
    assert Resampled(evaluator, Predictions(samples, {}, CLASSES)).names == list('012345')
    del samples[3][key]
    with pytest.raises(ValueError, match='an image is named by'):
        Resampled(evaluator, Predictions(samples, {}, CLASSES))


def test_an_evaluator_without_results_per_image_is_refused():
    from mmengine.evaluator import BaseMetric
    from mmengine.registry import METRICS

    @METRICS.register_module(force=True)
    class OneResult(BaseMetric):
        def process(self, data_batch, data_samples):
            self.results[:] = [1]

        def compute_metrics(self, results):
            return {}

    with pytest.raises(ValueError, match='OneResult keeps 1 results of 6 images'):
        Resampled(dict(type='mmengine.OneResult'), maps([0] * 6))


def keep(folder, predictions, condition):
    path = folder / 'robustness' / 'predictions' / f'{condition}.pkl'
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = [predictions[i] for i in range(len(predictions))]
    path.write_bytes(pickle.dumps(dict(head={}, dataset_meta=CLASSES, samples=samples)))


def runs_with_predictions(tmp_path, clean, fog, **said):
    """Tables, and the predictions that they are of; ``said`` is what a clean table says instead."""
    for name in clean:
        wrong = {'clean': clean[name], 'fog_3': fog[name]}
        of = {key: maps(value, len(value)) for key, value in wrong.items()}
        scores = {
            key: Resampled(CFG.test_evaluator, kept).evaluate(np.arange(len(kept)))['mIoU']
            for key, kept in of.items()
        }
        values = {'fog': {3: scores['fog_3']}}
        clean_score = said.get(name, scores['clean'])
        one = table(clean_score, values, task='segmentation', metric='mIoU')
        folder = make_run(tmp_path / name, one)
        for key, kept in of.items():
            keep(folder, kept, key)
    runs = read_runs(f'{name}={tmp_path / name}' for name in clean)
    (one,) = compare_tables('segmentation', by_task(runs)['segmentation'])
    return one


def test_differences_of_two_runs(tmp_path):
    init_default_scope('mmseg')
    wrong = [0, 2, 4, 1, 3, 5, 0, 2]
    one = runs_with_predictions(
        tmp_path,
        {'base': wrong, 'ours': [max(w - 1, 0) for w in wrong]},
        {'base': [w + 4 for w in wrong], 'ours': [w + 4 for w in wrong]},
    )
    found, notes = image_differences(one, 'base', CFG, resamples=60)
    ours = found['ours']
    assert notes == []
    assert ours['P'].mean > 0
    assert 0 < ours['P'].low < ours['P'].mean < ours['P'].high
    assert (ours['P'].p, ours['P'].n, ours['P'].over) == (None, 1, 'images')
    assert (ours['mPC'].mean, ours['mPC'].low) == (0.0, None)


def test_predictions_of_something_else_are_refused(tmp_path):
    init_default_scope('mmseg')
    wrong = {'base': [0, 1, 2], 'ours': [0, 1, 1]}
    one = runs_with_predictions(tmp_path, wrong, wrong, ours=12.0)
    found, (note,) = image_differences(one, 'base', CFG, resamples=10)
    assert found == {}
    assert 'of other checkpoints, evaluators or data' in note
    cfg = Config(dict(test_evaluator=dict(type='IoUMetric', iou_metrics=['mDice'])))
    _, (note,) = image_differences(one, 'base', cfg, resamples=10)
    assert 'in P' in note


def test_long_work_is_asked_for(tmp_path, monkeypatch):
    init_default_scope('mmseg')
    wrong = {'base': [0, 1, 2], 'ours': [0, 1, 1]}
    one = runs_with_predictions(tmp_path, wrong, wrong)
    monkeypatch.setattr(image_bootstrap, 'LIMIT', 0.0)
    _, (note,) = image_differences(one, 'base', CFG)
    assert 'ask for it by --resamples 200' in note
    # Nothing but clean images has been read for that.
    read = []
    monkeypatch.setattr(
        image_bootstrap, 'read_predictions', lambda p: read.append(p.name) or read_predictions(p)
    )
    image_differences(one, 'base', CFG)
    assert read == ['clean.pkl'] * 2
    draws = []
    found, _ = image_differences(one, 'base', CFG, 10, lambda: draws.append(1))
    assert found['ours']['P'].mean > 0
    # All images, ten draws, and each image left out; some draws are alike.
    assert 5 <= len(draws) <= calls(3, 10)


def test_other_images_are_no_pair(tmp_path):
    init_default_scope('mmseg')
    wrong = {'base': [0, 1, 2], 'ours': [0, 1, 2, 3]}
    one = runs_with_predictions(tmp_path, wrong, wrong)
    found, (note,) = image_differences(one, 'base', CFG, resamples=10)
    assert found == {}
    assert 'other images' in note


def test_a_missing_file_is_named(tmp_path):
    init_default_scope('mmseg')
    wrong = {'base': [0, 1, 2], 'ours': [0, 1, 2]}
    one = runs_with_predictions(tmp_path, wrong, wrong)
    (tmp_path / 'ours' / 'robustness' / 'predictions' / 'fog_3.pkl').unlink()
    _, (note,) = image_differences(one, 'base', CFG, resamples=10)
    assert 'fog_3.pkl is missing' in note


@pytest.mark.parametrize('subset', [True, False])
def test_images_that_are_not_tested_are_not_missed(tmp_path, subset):
    """By mmdet's metric of COCO, which goes by its annotation file."""
    init_default_scope('mmdet')
    predictions = boxes([0, 0, 14, 14])
    metric = dict(type='CocoMetric', metric='bbox', ann_file=coco_file(tmp_path, predictions))
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = CLASSES

    tested = predictions[: 2 if subset else 4]
    count_tested_only(evaluator, tested)
    evaluator.process(predictions[:2])
    found = evaluator.evaluate(2)['coco/bbox_mAP_50']
    assert (found == 1.0) == subset


def metric_of(images, **settings):
    """One that knows an annotation file of these images."""
    api = SimpleNamespace(get_img_ids=lambda: list(images))
    return SimpleNamespace(**dict.fromkeys(settings.pop('apis'), api), **settings)


def test_each_metric_is_told_the_tested_images():
    """Of all data sets by one look at them; of joined ones those of its own."""
    metrics = [metric_of(range(4), apis=['_coco_api'], img_ids=None) for _ in range(2)]
    count_tested_only(SimpleNamespace(metrics=metrics), (dict(img_id=i) for i in (1, 3)))
    assert [metric.img_ids for metric in metrics] == [[1, 3], [1, 3]]
    metrics = [metric_of(range(4), apis=['_coco_api'], img_ids=None) for _ in range(2)]
    joined = SimpleNamespace(
        metrics=metrics, dataset_prefixes=['a', 'b'], _get_cumulative_sizes=lambda: [2, 5]
    )
    count_tested_only(joined, (dict(img_id=i) for i in (0, 1, 1, 2, 3)))
    assert [metric.img_ids for metric in metrics] == [[0, 1], [1, 2, 3]]


def test_metrics_that_add_up_what_they_are_shown_need_no_images():
    """As mmdet's ``CocoPanopticMetric``, which has a file of COCO and no ``img_ids`` yet."""
    metric = metric_of(range(4), apis=['_coco_api'])
    count_tested_only(SimpleNamespace(metrics=[metric]), [dict(img_id=0)])
    assert not hasattr(metric, 'img_ids')


def test_lvis_counts_all_images_of_its_file():
    metric = metric_of(range(4), apis=['_lvis_api'], _coco_api=None, img_ids=None)
    evaluator = SimpleNamespace(metrics=[metric])
    count_tested_only(evaluator, [dict(img_id=i) for i in range(4)])
    with pytest.raises(ValueError, match='all 4 images of its annotation file, of which 3'):
        count_tested_only(evaluator, [dict(img_id=i) for i in range(3)])


def test_several_data_sets_are_refused():
    """Each metric gets a part of the images, by their position."""
    metric = dict(type='mmseg.IoUMetric')
    evaluator = dict(
        type='MultiDatasetsEvaluator', metrics=[metric, metric], dataset_prefixes=['a', 'b']
    )
    init_default_scope('mmdet')
    with pytest.raises(ValueError, match='MultiDatasetsEvaluator gives each metric images by'):
        Resampled(evaluator, maps([0] * 6))
