# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Ground truth of test pipelines lies on the objects in what the network sees."""

import copy
from importlib import import_module
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import pseudo_collate

from mmfeataug.evaluation import Region
from mmfeataug.evaluation.attacks.base import Images
from mmfeataug.evaluation.attacks.geometry import Geometry, region_of
from mmfeataug.evaluation.attacks.ground_truth import for_loss
from mmfeataug.utils.pipelines import steps as steps_of

COLOUR = (220, 20, 60)
META = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'pad_param', 'border')


@pytest.fixture(scope='module', autouse=True)
def _registered():
    for package in ('mmdet', 'mmseg'):
        import_module(f'{package}.utils').register_all_modules(init_default_scope=False)


class Letterbox(BaseTransform):
    """Scales and pads around the middle.

    Args:
        size: Of the result.
        truth: Whether boxes that are there move along.
        records: Whether it writes down what it did.
    """

    def __init__(self, size, truth=True, records=True):
        self.size, self.truth, self.records = size, truth, records

    def transform(self, results):
        height, width = results['img'].shape[:2]
        factor = min(self.size[0] / height, self.size[1] / width)
        shape = round(height * factor), round(width * factor)
        top, left = (self.size[0] - shape[0]) // 2, (self.size[1] - shape[1]) // 2
        image = np.full((*self.size, 3), 114, np.uint8)
        resized = mmcv.imresize(results['img'], shape[::-1])
        image[top : top + shape[0], left : left + shape[1]] = resized
        results['img'], results['img_shape'] = image, self.size
        if self.records:
            below, right = self.size[0] - shape[0] - top, self.size[1] - shape[1] - left
            results['scale_factor'] = (factor, factor)
            results['pad_param'] = np.float32([top, below, left, right])
        if self.truth and results.get('gt_bboxes') is not None:
            results['gt_bboxes'].rescale_((factor, factor))
            results['gt_bboxes'].translate_((left, top))
        return results


@pytest.fixture
def drawn(tmp_path):
    """Images of several sizes with one coloured rectangle, its box, polygon and label map."""
    found = []
    for i, (height, width) in enumerate([(60, 100), (80, 72)]):
        image = np.random.default_rng(i).integers(120, 150, (height, width, 3), np.uint8)
        x, y, w, h = 50 - 9 * i, 20 + 12 * i, 24, 18
        image[y : y + h, x : x + w] = COLOUR
        labels = np.zeros((height, width), np.uint8)
        labels[y : y + h, x : x + w] = 1
        cv2.imwrite(str(tmp_path / f'{i}.png'), image[..., ::-1])
        cv2.imwrite(str(tmp_path / f'{i}_labels.png'), labels)
        outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        instance = dict(bbox=[x, y, x + w, y + h], bbox_label=0, mask=outline, ignore_flag=0)
        found.append(
            dict(
                img_path=str(tmp_path / f'{i}.png'),
                img_id=i,
                height=height,
                width=width,
                instances=[instance],
                seg_map_path=str(tmp_path / f'{i}_labels.png'),
                label_map=None,
                reduce_zero_label=False,
                seg_fields=[],
            )
        )
    return found


def data(scope, drawn, steps, **preprocessor):
    """The built data set, a batch of all its images as the network sees it, and its samples."""
    from mmengine.dataset import BaseDataset
    from mmengine.registry import DefaultScope, init_default_scope

    previous = DefaultScope.get_current_instance()
    init_default_scope(scope)
    package = import_module(f'{scope}.registry')
    pack = dict(type='PackDetInputs' if scope == 'mmdet' else 'PackSegInputs', meta_keys=META)
    pipeline = [dict(type='LoadImageFromFile', to_float32=CENTRE in steps), *steps, pack]
    built = [
        package.TRANSFORMS.build(step) if isinstance(step, dict) else step for step in pipeline
    ]

    class Drawn(BaseDataset):
        def load_data_list(self):
            return [dict(info) for info in drawn]

    dataset = Drawn(pipeline=built)
    kind = 'DetDataPreprocessor' if scope == 'mmdet' else 'SegDataPreProcessor'
    plain = dict(type=kind, mean=[0.0] * 3, std=[1.0] * 3, bgr_to_rgb=True, **preprocessor)
    model = SimpleNamespace(data_preprocessor=package.MODELS.build(plain))
    batch = model.data_preprocessor(pseudo_collate([dataset[i] for i in range(len(drawn))]), False)
    if previous is not None:
        init_default_scope(previous.scope_name)
    return dataset, model, batch['inputs'], batch['data_samples']


def overlap(image, mask):
    """Of a mask with the coloured pixels of an image: intersection over union."""
    coloured = image[0] - image[1] > 90
    return float((coloured & mask).sum() / (coloured | mask).sum())


BOXES = dict(type='LoadAnnotations', with_bbox=True)
MASKS = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
RESIZE = dict(type='Resize', scale=(96, 96), keep_ratio=True)
PAD = dict(type='Pad', size=(128, 128), pad_val=dict(img=(114, 114, 114)))
CENTRE = dict(
    type='RandomCenterCropPad',
    ratios=None,
    border=None,
    mean=[0, 0, 0],
    std=[1, 1, 1],
    to_rgb=True,
    test_mode=True,
    test_pad_mode=['logical_or', 31],
    test_pad_add_pix=1,
)


@pytest.mark.parametrize(
    'steps',
    [
        [RESIZE, BOXES],
        [BOXES, RESIZE],
        [RESIZE, PAD, BOXES],
        [RESIZE, PAD, MASKS],
        [RESIZE, MASKS],
        [PAD, BOXES],
        [PAD, MASKS],
        [BOXES, PAD],
        [CENTRE, BOXES],
        [CENTRE, MASKS],
        [Letterbox((96, 128)), BOXES],
        [BOXES, Letterbox((96, 128))],
        [Letterbox((96, 128), truth=False), BOXES],
        [Letterbox((96, 128), truth=False), MASKS],
    ],
)
def test_boxes_and_masks(drawn, steps):
    with_masks = MASKS in steps
    dataset, model, inputs, samples = data(
        'mmdet', drawn, steps, pad_size_divisor=32, pad_mask=with_masks
    )
    before = [s.gt_instances.bboxes.clone() for s in samples]
    truth = for_loss(samples, inputs, model, Geometry(dataset))
    for image, sample in zip(inputs, truth, strict=True):
        left, top, right, bottom = sample.gt_instances.bboxes[0].round().int().tolist()
        inside = torch.zeros(inputs.shape[-2:], dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert overlap(image, inside) > 0.85
        if with_masks:
            masks = sample.gt_instances.masks.masks
            assert masks.shape == (1, *inputs.shape[-2:])
            assert overlap(image, torch.from_numpy(masks[0]).bool()) > 0.8
    for sample, boxes in zip(samples, before, strict=True):
        assert torch.equal(sample.gt_instances.bboxes, boxes)


LABELS = dict(type='LoadAnnotations')


@pytest.mark.parametrize(
    ('steps', 'settings'),
    [
        ([dict(type='Resize', scale=(128, 128), keep_ratio=False), LABELS], {}),
        ([RESIZE, dict(type='Pad', size=(96, 128)), LABELS], {}),
        ([LABELS, RESIZE, dict(type='Pad', size=(96, 128))], {}),
        ([dict(type='Pad', size=(128, 128)), LABELS], {}),
        ([dict(type='Resize', scale=(90, 60), keep_ratio=False), LABELS], dict(size_divisor=64)),
        ([Letterbox((96, 128), truth=False), LABELS], {}),
    ],
)
def test_label_maps(drawn, steps, settings):
    """Of files of several sizes, too."""
    dataset, model, inputs, samples = data('mmseg', drawn, steps, test_cfg=settings or None)
    truth = for_loss(samples, inputs, model, Geometry(dataset))
    for image, sample in zip(inputs, truth, strict=True):
        labels = sample.gt_sem_seg.data
        assert labels.shape == (1, *inputs.shape[-2:])
        assert overlap(image, labels[0] == 1) > 0.85


@pytest.mark.parametrize('step', [PAD, CENTRE, Letterbox((96, 128), records=False), RESIZE])
def test_padding_is_known(drawn, step):
    dataset, _, inputs, samples = data('mmdet', drawn, [step, BOXES], pad_size_divisor=32)
    inside = Images.of(samples, 0, Geometry(dataset)).inside(inputs).bool()
    for image, mask in zip(inputs, inside, strict=True):
        # Padding is of one colour, the image is noise.
        padding = (image == 114).all(0) | (image == 0).all(0)
        assert (mask[0] == ~padding).float().mean() > 0.99


def test_one_image_with_several_annotations(drawn):
    """Each item has its own."""
    other = copy.deepcopy(drawn[0])
    other['instances'][0]['bbox'] = [1, 2, 30, 40]
    dataset, model, inputs, samples = data('mmdet', [*drawn, other], [RESIZE, BOXES])
    truth = for_loss(samples, inputs, model, Geometry(dataset))
    factors = [s.scale_factor[0] for s in samples]
    for sample, given, factor in zip(truth, samples, factors, strict=True):
        torch.testing.assert_close(
            sample.gt_instances.bboxes, given.gt_instances.bboxes * factor, atol=1.0, rtol=0
        )


def test_steps_that_know_no_boxes_of_the_package(drawn):
    steps = [dict(type='mmcv.Resize', scale=(96, 96), keep_ratio=True), BOXES]
    dataset, model, inputs, samples = data('mmdet', drawn, steps)
    for image, sample in zip(
        inputs, for_loss(samples, inputs, model, Geometry(dataset)), strict=True
    ):
        left, top, right, bottom = sample.gt_instances.bboxes[0].round().int().tolist()
        inside = torch.zeros(inputs.shape[-2:], dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert overlap(image, inside) > 0.85


def test_a_flip_that_knows_no_boxes_of_the_package(drawn):
    steps = [dict(type='mmcv.RandomFlip', prob=1.0), BOXES]
    dataset, model, inputs, samples = data('mmdet', drawn, steps)
    with pytest.raises(ValueError, match='RandomFlip moves the image and neither moves gt_bboxes'):
        for_loss(samples, inputs, model, Geometry(dataset))


def test_steps_of_wrapping_data_sets():
    """mmdet's mixing ones have a list of their own."""
    inner = SimpleNamespace(pipeline=SimpleNamespace(transforms=['load']))
    mixed = SimpleNamespace(pipeline=['mosaic', 'normalize'], dataset=inner)
    joined = SimpleNamespace(datasets=[mixed, inner])
    assert list(steps_of(joined)) == ['mosaic', 'normalize', 'load', 'load']


def test_a_data_set_that_brings_its_images(drawn):
    class Brings:
        pipeline = SimpleNamespace(transforms=[Letterbox((64, 96), records=False), Pack()])

        def __len__(self):
            return 1

        def get_data_info(self, index):
            noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
            return dict(img=noise, img_id=0, img_path=None)

    sample = SimpleNamespace(metainfo=dict(img_id=0, img_path=None))
    assert Geometry(Brings()).region(sample) == Region(0, 16, 64, 80)
    assert Images.of([sample], 0, Geometry(Brings())).names == ['0']


class Pack:
    def __call__(self, results):
        return dict(inputs=results['img'].transpose(2, 0, 1))


def test_a_step_that_does_not_say_where_to_is_named(drawn):
    step = Letterbox((96, 128), truth=False, records=False)
    dataset, model, inputs, samples = data('mmdet', drawn, [step, BOXES])
    with pytest.raises(ValueError, match='Letterbox moves the image and neither moves gt_bboxes'):
        for_loss(samples, inputs, model, Geometry(dataset))


def test_an_image_of_another_data_set_is_named(drawn):
    dataset, model, inputs, samples = data('mmdet', drawn, [RESIZE, BOXES])
    samples[1].set_metainfo(dict(img_path='other.png', img_id='other'))
    with pytest.raises(ValueError, match=r"no image with \{'img_path': 'other.png'"):
        for_loss(samples, inputs, model, Geometry(dataset))


def test_a_pipeline_that_draws_is_refused(drawn):
    class RandomSize(BaseTransform):
        sizes = [(64, 64), (96, 64), (64, 96), (96, 96)]

        def transform(self, results):
            return Letterbox(self.sizes.pop())(results)

    dataset, model, inputs, samples = data('mmdet', drawn, [RandomSize(), BOXES])
    with pytest.raises(ValueError, match='draws nothing at random'):
        for_loss(samples, inputs, model, Geometry(dataset))


@pytest.mark.parametrize(
    ('meta', 'region'),
    [
        (dict(img_shape=(60, 80)), (0, 0, 60, 80)),
        (dict(img_shape=(60, 80), border=[5, 40, 7, 70]), (5, 7, 40, 70)),
        (dict(img_shape=(60, 80), pad_param=[5, 6, 7, 8]), (5, 7, 54, 72)),
        (dict(img_shape=(60, 80), ori_shape=(20, 30), scale_factor=(2, 2)), (0, 0, 40, 60)),
    ],
)
def test_samples_of_no_data_set(meta, region):
    assert region_of(SimpleNamespace(metainfo=meta)) == Region(*region)
