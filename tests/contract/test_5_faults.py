# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Batches and uses that real training meets: nothing is lost, nothing stays behind."""

import copy

import pytest
import torch
from mmengine.structures import InstanceData

import mmfeataug
from tests.contract.cases import EACH_TASK, afan
from tests.models import (
    buffers,
    build_detector,
    build_segmentor,
    random_test_batch,
    relative_difference,
    step,
)
from tests.oracle import double, double_precision, held_against_reference


def steps_right(build, at, prepare):
    """One augmented step on what ``prepare`` makes of a batch is what the reference says."""
    with double_precision():
        model, batch = double(build)
        for learn in ('tail', 'network'):
            entry = afan(at, learn=learn)
            held_against_reference(copy.deepcopy(model), [entry], prepare(model, *batch))


@EACH_TASK
def test_nan_in_a_batch(build, at):
    """The clean step is the stock one, NaN as it is; views are dropped; the next step is fine."""
    stock, ours = build(), build()
    batch = random_test_batch(stock)
    inputs, samples = copy.deepcopy(batch)
    inputs[0, :, 5, 5] = float('nan')
    # What a NaN does to running statistics is the same in stock.
    for model in (stock, ours):
        model.eval()
        model.training = True
    expected, _ = step(stock, (inputs, copy.deepcopy(samples)))
    with mmfeataug.attach(ours, [afan(at)], strict=True):
        losses, _ = step(ours, (inputs, samples))
        assert float(losses['afan.dropped']) == 2
        for key, value in expected.items():
            torch.testing.assert_close(
                torch.as_tensor(losses[key]), torch.as_tensor(value), equal_nan=True
            )
        losses, gradients = step(ours, batch)
    assert float(losses['afan.dropped']) == 0
    assert all(g.isfinite().all() for g in gradients.values() if g is not None)


def test_empty_ground_truth():
    def prepare(model, inputs, samples):
        for sample in samples:
            sample.gt_instances = InstanceData(
                bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
            )
        return inputs, samples

    steps_right(build_detector, 'backbone.layer2', prepare)


def test_batch_of_one():
    steps_right(build_detector, 'backbone.layer2', lambda _, x, samples: (x[:1], samples[:1]))


def test_batch_of_one_that_stock_refuses():
    """Batch norm after DeepLabV3+'s image pooling needs two images: stock's own error."""
    model = build_segmentor()
    with (
        mmfeataug.attach(model, [afan('backbone.layer3')]),
        pytest.raises(ValueError, match='Expected more than 1 value per channel'),
    ):
        step(model, random_test_batch(model, images=1))


def test_images_of_different_sizes():
    """Padded to one size by the data preprocessor, as in training."""

    def prepare(model, *_):
        inputs, samples = random_test_batch(model, size=96, images=2)
        images = [inputs[0, :, :64, :96], inputs[1, :, :96, :64]]
        for image, sample in zip(images, samples, strict=True):
            sample.set_metainfo(dict(img_shape=tuple(image.shape[1:])))
        data = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
        assert [s.pad_shape for s in data['data_samples']] == [(64, 96), (96, 64)]
        assert data['inputs'].shape == (2, 3, 96, 96)
        return data['inputs'].double(), data['data_samples']

    steps_right(build_detector, 'backbone.layer2', prepare)


@EACH_TASK
def test_model_in_eval_mode_is_stock(build, at):
    stock, ours = build().eval(), build().eval()
    batch = random_test_batch(stock)
    _, expected = step(stock, copy.deepcopy(batch))
    with mmfeataug.attach(ours, [afan(at)]) as handle:
        losses, gradients = step(ours, batch)
        assert not handle.was_active
    assert not [k for k in losses if k.startswith('afan')]
    assert relative_difference(gradients, expected) == 0


def test_detach_of_an_old_handle_leaves_the_new_one():
    model = build_segmentor()
    old = mmfeataug.attach(model, [afan('backbone.layer3')])
    old.detach()
    new = mmfeataug.attach(model, [afan('backbone.layer2')])
    old.detach()
    assert model.loss is new
    new.detach()
    new.detach()
    assert 'loss' not in vars(model)


def test_heads_may_write_into_the_samples():
    """Instance heads replace masks by tensors in place; every pass has samples of its own."""
    model = build_detector()
    batch = random_test_batch(model)
    type(model).loss = writing(original := type(model).loss)
    try:
        with mmfeataug.attach(model, [afan('backbone.layer2')], strict=True):
            losses, _ = step(model, batch)
    finally:
        type(model).loss = original
    assert float(losses['afan.dropped']) == 0
    assert isinstance(batch[1][0].gt_instances.labels, torch.Tensor)


def writing(loss):
    def wrapped(self, inputs, samples):
        for sample in samples:
            assert 'seen' not in sample.gt_instances
            sample.gt_instances.seen = torch.ones(len(sample.gt_instances))
        return loss(self, inputs, samples)

    return wrapped


@pytest.mark.parametrize('learn', ['tail', 'network'])
def test_buffers_after_a_bad_batch_are_those_of_stock(learn):
    stock, ours = build_segmentor(), build_segmentor()
    inputs, samples = random_test_batch(stock)
    inputs[0] = float('inf')
    step(stock, (inputs, copy.deepcopy(samples)))
    with mmfeataug.attach(ours, [afan('backbone.layer3', learn=learn)]):
        step(ours, (inputs, samples))
    for name, value in buffers(stock).items():
        torch.testing.assert_close(buffers(ours)[name], value, equal_nan=True)
