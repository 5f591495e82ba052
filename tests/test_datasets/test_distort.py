# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmfeataug.datasets import CombinedDistortion
from mmfeataug.registry import TRANSFORMS
from tests.test_tools import DETECTION, SEGMENTATION

GREEN = np.zeros((40, 48, 3), np.uint8)
GREEN[..., 1] = 128


def distorted(image, **settings):
    return CombinedDistortion(**settings).transform(dict(img=image.copy()))['img']


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_image_keeps_its_form(dtype):
    image = np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(dtype)
    out = distorted(image)
    assert out.shape == image.shape
    assert out.dtype == dtype
    assert out.flags.c_contiguous
    assert 0 <= out.min() <= out.max() <= 255
    assert not np.array_equal(out, image)


def test_red_is_red():
    """A gain of the first channel of RGB, the last of BGR."""
    image = np.full((8, 8, 3), 100, np.uint8)
    double = [dict(type='Normalize', mean=(0.0, 0.0, 0.0), std=(0.5, 1.0, 1.0))]
    assert distorted(image, distortions=double)[0, 0].tolist() == [100, 100, 200]
    assert distorted(image, distortions=double, rgb=True)[0, 0].tolist() == [200, 100, 100]


def test_probability():
    step = CombinedDistortion(prob=0.25)
    changed = sum(
        not np.array_equal(step.transform(dict(img=GREEN))['img'], GREEN) for _ in range(200)
    )
    assert 30 < changed < 70
    assert distorted(GREEN, prob=0).tolist() == GREEN.tolist()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(distortions=[dict(type='RandomHorizontalFlip')]), 'moves pixels'),
        (dict(distortions=[]), 'at least one'),
        (dict(prob=1.5), 'prob=1.5'),
    ],
)
def test_bad_input(settings, message):
    with pytest.raises(ValueError, match=message):
        CombinedDistortion(**settings)


@pytest.mark.parametrize('config', [DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def test_in_a_pipeline(config, demo_data):
    """Of mmdet and mmseg: labels are those without it, each image and each epoch has its own
    draw."""
    cfg = Config.fromfile(config)
    layout = 'coco' if config == DETECTION else 'cityscapes'
    init_default_scope(cfg.default_scope)
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = str(demo_data[layout])
    loads, *_ = dataset.pipeline
    annotations = next(t for t in dataset.pipeline if t.type == 'LoadAnnotations')
    packs = dataset.pipeline[-1]
    found = []
    for steps in ([], [dict(type='mmfeataug.CombinedDistortion')]):
        dataset.pipeline = [loads, annotations, *steps, packs]
        torch.manual_seed(0)
        built = DATASETS.build(dataset)
        found.append([built[0], built[0], built[1]])
    for clean, changed in zip(*found, strict=True):
        assert not torch.equal(clean['inputs'], changed['inputs'])
        if config == DETECTION:
            boxes = [d['data_samples'].gt_instances.bboxes.tensor for d in (clean, changed)]
            assert torch.equal(*boxes)
        else:
            maps = [d['data_samples'].gt_sem_seg.data for d in (clean, changed)]
            assert torch.equal(*maps)
    assert not torch.equal(found[1][0]['inputs'], found[1][1]['inputs'])


def test_its_name_is_enough():
    assert TRANSFORMS.get('mmfeataug.CombinedDistortion') is CombinedDistortion
    assert 'RandomGamma' in repr(CombinedDistortion())
