# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Predictions on disk: nothing is lost, and files are small."""

import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mmfeataug.evaluation import (
    RefusedError,
    RunTable,
    evaluate_offline,
    predictions_file,
    read_predictions,
    saving,
)
from mmfeataug.evaluation.predictions import Packed, pack, unpack

VALUES = {
    'labels': torch.arange(60).reshape(1, 6, 10) % 19,
    'ignored': torch.tensor([[0, 255], [18, 3]]),
    'ids': torch.tensor([[0, 65535], [7, 256]], dtype=torch.int32),
    'large': torch.tensor([[0, 2**40]]),
    'negative': torch.tensor([[-1, 3]], dtype=torch.int16),
    'masks': torch.rand(3, 7, 9) > 0.5,
    'no masks': torch.zeros(0, 7, 9, dtype=torch.bool),
    'no labels': torch.zeros(0, 5, dtype=torch.long),
    'array': np.arange(12, dtype=np.int64).reshape(3, 4),
    'truth': np.array([[True, False]]),
    'boxes': torch.rand(4, 4),
    'half': torch.rand(2, 2).half(),
    'few': torch.tensor([3, 1]),
    'floats': np.random.default_rng(0).random((2, 3)),
    'meta': ((48, 64), 'x.png', None, 1.5),
}


@pytest.mark.parametrize('name', VALUES)
def test_without_loss(name):
    value = VALUES[name]
    back = unpack(pickle.loads(pickle.dumps(pack({'a': {'b': value}}))))['a']['b']
    assert type(back) is type(value)
    if isinstance(value, tuple):
        assert back == value
    else:
        assert back.dtype == value.dtype
        assert back.shape == value.shape
        assert (back == value).all()


def test_few_bytes():
    labels = torch.zeros(1024, 2048, dtype=torch.long)
    assert len(pickle.dumps(pack(labels))) < 20_000
    assert pack(VALUES['ignored']).stored == '|u1'
    assert pack(VALUES['ids']).stored == '<u2'
    # Masks as bits, and boxes without the tensor that they are a view of.
    masks = torch.rand(10, 80, 100) > 0.5
    assert len(pickle.dumps(pack(masks))) < masks.numel() / 8 * 1.1
    assert len(pickle.dumps(pack(torch.rand(10_000, 4)[:2]))) < 1000


def test_ground_truth_of_detectors():
    masks = pytest.importorskip('mmdet.structures.mask')
    boxes = pytest.importorskip('mmdet.structures.bbox')
    bits = (np.random.default_rng(0).random((2, 8, 9)) > 0.5).astype(np.uint8)
    truth = dict(
        masks=masks.BitmapMasks(bits, 8, 9), bboxes=boxes.HorizontalBoxes(torch.rand(2, 4))
    )
    kept = pack(truth)
    assert isinstance(kept['masks'].masks, Packed)
    assert truth['masks'].masks is bits
    back = unpack(kept)
    assert np.array_equal(back['masks'].masks, bits)
    assert torch.equal(back['bboxes'].tensor, truth['bboxes'].tensor)


class Sum(BaseMetric):
    default_prefix = 'sum'

    def process(self, data_batch, data_samples):
        self.results += [sample['pred_sem_seg']['data'].sum() for sample in data_samples]

    def compute_metrics(self, results):
        return {'all': int(sum(results)), 'classes': len(self.dataset_meta['classes'])}


def samples():
    for i in range(5):
        found = torch.full((1, 4, 4), i)
        yield BaseDataElement(
            metainfo=dict(img_path=f'{i}.png'),
            pred_sem_seg=PixelData(data=found),
            seg_logits=PixelData(data=torch.rand(3, 4, 4)),
            pred_instances=InstanceData(scores=torch.rand(i)),
        )


def test_saved_and_read(tmp_path):
    path = tmp_path / 'new' / 'clean.pkl'
    evaluator = Evaluator([Sum()])
    evaluator.dataset_meta = dict(classes=('a', 'b', 'c'))
    with saving(evaluator, path, task='segmentation'):
        for sample in samples():
            evaluator.process([sample], data_batch=None)
        assert not path.exists()
        # The last batch of several processes repeats images, which are dropped.
        metrics = evaluator.evaluate(4)
    assert not {'process', 'evaluate'} & vars(evaluator).keys()
    found = read_predictions(path)
    assert (len(found), found.head) == (4, {'task': 'segmentation'})
    assert [sample['img_path'] for sample in found] == [f'{i}.png' for i in range(4)]
    assert [sample['img_path'] for sample in found[1:3]] == ['1.png', '2.png']
    assert 'seg_logits' not in found[0]
    assert found.found() == 0 + 1 + 2 + 3
    judge = Evaluator([Sum()])
    judge.dataset_meta = found.dataset_meta
    assert judge.offline_evaluate(found) == metrics == {'sum/all': 96, 'sum/classes': 3}
    with pytest.raises(IndexError):
        found[4]


def test_other_files(tmp_path):
    path = tmp_path / 'x.pkl'
    for content in (b'', b'text', pickle.dumps([1, 2]), pickle.dumps({'head': {}})):
        path.write_bytes(content)
        with pytest.raises(RefusedError, match=r'x\.pkl holds no predictions'):
            read_predictions(path)


def keep(folder, made_with, condition=('clean', 0)):
    path = predictions_file(folder, condition)
    folder.mkdir(exist_ok=True)
    head = dict(made_with=made_with, checkpoint='a.pth', config='cfg', task='detection')
    path.write_bytes(pickle.dumps(dict(head=head, dataset_meta={}, samples=[])))


def test_predictions_of_an_earlier_run_are_made_anew(tmp_path):
    """A table that was deleted leaves them behind."""
    ours = dict(config='digest', checkpoint='/b.pth', mtime=2)
    record = RunTable(tmp_path / 'run', 'cfg', 'b.pth', ours, [('fog', 1)])
    record.add(('clean', 0), {'m': 1.0}, 0, 0.0)
    kept = tmp_path / 'kept'
    assert record.pending() == [('fog', 1)]
    assert record.pending(kept) == [('clean', 0), ('fog', 1)]
    for other in (dict(ours, checkpoint='/a.pth'), dict(ours, mtime=1), dict(ours, config='x')):
        keep(kept, other)
        assert record.pending(kept) == [('clean', 0), ('fog', 1)]
    keep(kept, ours)
    assert record.pending(kept) == [('fog', 1)]


def test_predictions_of_two_configs_are_not_mixed(tmp_path):
    keep(tmp_path, dict(config='one', checkpoint='/a.pth'))
    keep(tmp_path, dict(config='two', checkpoint='/a.pth'), ('fog', 1))
    cfg = Config(dict(test_evaluator=[], test_dataloader={}))
    with pytest.raises(RefusedError, match=r'fog_1\.pkl is of another checkpoint or config'):
        evaluate_offline(tmp_path, cfg, tmp_path, corruptions=['fog'], severities=[1])


def test_another_version_of_the_corruptions_is_not_gone_on_with(tmp_path):
    made_with = dict(config='digest', checkpoint='a.pth')
    record = RunTable(tmp_path, 'cfg', 'a.pth', made_with, [('fog', 1)])
    record.table['clean'] = {'m': 1.0}
    record.save()
    RunTable(tmp_path, 'cfg', 'a.pth', made_with, [('fog', 1)], resume=True)
    other = dict(made_with, libraries={'kornia': '0.1'})
    with pytest.raises(RefusedError, match='other versions of the libraries'):
        RunTable(tmp_path, 'cfg', 'a.pth', other, [('fog', 1)], resume=True)
