# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A view that is trained on a part of the batch: which part, where it is possible, and that it is a
stock pass of these samples with the feature replaced."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmfeataug
from mmfeataug.engine import Choice, FeatureAugmentation, View
from mmfeataug.engine.guards import RandomState
from tests.models import (
    buffers,
    build_detector,
    build_segmentor,
    gradients,
    random_test_batch,
    relative_difference,
    step,
)


class Louder(FeatureAugmentation):
    active = True
    factor = 1.1

    def views(self, features, gradients, tail):
        yield View([f * self.factor for f in features], 0.5)


class Toy(nn.Module):
    """Notes what each pass is given. With ``rows`` the stem yields that many, whatever the
    batch."""

    def __init__(self, passes, rows=None):
        super().__init__()
        self.stem, self.head, self.rows = nn.Linear(4, 4), nn.Linear(4, 2), rows
        self.note = lambda samples, inputs: passes.append((samples, inputs.detach()))

    def loss(self, inputs, data_samples=None):
        self.note(data_samples, inputs)
        if self.rows is not None:
            inputs = inputs.mean(0, keepdim=True).repeat(self.rows, 1)
        return {'loss': self.head(self.stem(inputs)).square().mean()}

    def parse_losses(self, losses):
        return sum(v.mean() for k, v in losses.items() if 'loss' in k), losses


def frozen(model):
    """Batch norms in evaluation mode, so that a sample does not depend on its neighbours."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return model


@pytest.mark.parametrize('engine', ['precomputed', 'graph'])
@pytest.mark.parametrize(
    ('build', 'at', 'prefix'),
    [
        (build_detector, 'backbone.layer2', ('backbone.conv1', 'backbone.bn1', 'backbone.layer1')),
        (build_detector, 'neck', ('backbone', 'neck')),
        (build_segmentor, 'backbone.layer2', ('backbone.conv1', 'backbone.bn1', 'backbone.layer1')),
        (build_segmentor, 'inputs', ()),
    ],
)
def test_is_a_stock_pass_of_the_part(build, at, prefix, engine):
    batch = random_test_batch(build(), images=4)
    model = frozen(build())
    with mmfeataug.attach(model, [Louder(at=at)], engine=engine, strict=True) as handle:
        handle.only = Choice('louder', 0, factor=2.0, samples=3)
        losses, ours = step(model, batch)
        assert handle.parts == {'louder': range(1, 4)}
    # By hand: a clean pass that keeps the feature, then the tail on three of its samples.
    reference, kept = frozen(build()), {}
    tapped = None if at == 'inputs' else reference.get_submodule(at)

    def keep(module, args, output):
        kept.update(feature=output, random=RandomState())

    def replace(module, args, output):
        kept['random'].restore()
        return louder(kept['feature'])

    def louder(feature):
        if isinstance(feature, tuple):
            return tuple(map(louder, feature))
        return feature.detach()[part] * 1.1

    first = random.Random(0).randrange(4)
    part = [(first + i) % 4 for i in range(3)]
    inputs, samples = batch
    hook = tapped and tapped.register_forward_hook(keep)
    _, clean = step(reference, batch)
    torch.manual_seed(3)
    np.random.seed(3)
    if hook:
        hook.remove()
        tapped.register_forward_hook(replace)
    for parameter in (p for n, p in reference.named_parameters() if n.startswith(prefix)):
        parameter.requires_grad_(False)
    inputs = inputs[part] if tapped else louder(inputs)
    reference.zero_grad()
    total = reference.parse_losses(reference.loss(inputs, [samples[i] for i in part]))[0]
    total.backward()
    torch.testing.assert_close(losses['louder.loss_0'].detach(), total.detach(), rtol=1e-6, atol=0)
    expected = {n: clean[n] if g is None else clean[n] + g for n, g in gradients(reference).items()}
    assert relative_difference(ours, expected) < 1e-5


def toy_step(toy, size=4):
    inputs = torch.arange(4.0 * size).view(size, 4) + 1
    torch.manual_seed(0)
    losses = toy.loss(inputs, [f'sample {i}' for i in range(size)])
    toy.parse_losses(losses)[0].backward()
    return losses


def test_every_position_has_its_turn():
    passes = []
    toy = Toy(passes)
    with mmfeataug.attach(toy, [Louder(at='stem')]) as handle:
        handle.only = Choice('louder', 0, samples=2)
        found = []
        for iteration in [*range(0, 40, 2), *range(0, 40, 2)]:
            handle.iteration = iteration
            toy_step(toy)
            samples, inputs = passes[-1]
            positions = [int(s[-1]) for s in samples]
            assert (positions[1] - positions[0]) % 4 == 1
            assert inputs[:, 0].tolist() == [4.0 * p + 1 for p in positions]
            found.append(positions)
    assert found[:20] == found[20:]
    assert {p for positions in found for p in positions} == {0, 1, 2, 3}
    assert min(sum(p in positions for positions in found[:20]) for p in range(4)) >= 4


@pytest.mark.parametrize('rows', [3, 4])
def test_whole_batch_where_rows_are_no_samples(rows):
    """Even where there are as many by chance."""
    passes = []
    toy = Toy(passes, rows)
    with mmfeataug.attach(toy, [Louder(at='stem')]) as handle:
        whole = toy_step(toy)
        handle.only = Choice('louder', 0, samples=2)
        for _ in range(2):
            losses = toy_step(toy)
            assert torch.equal(losses['louder.loss_0'], whole['louder.loss_0'])
            assert len(passes[-1][0]) == 4
            assert handle.parts == {}


def test_roi_tap_has_the_whole_batch():
    model = frozen(build_detector())
    batch = random_test_batch(model, images=2)
    with mmfeataug.attach(model, [Louder(at='roi_head.bbox_head.shared_fcs.1')]) as handle:
        whole, _ = step(model, batch)
        handle.only = Choice('louder', 0, samples=1)
        losses, _ = step(model, batch)
        assert handle.parts == {}
    assert torch.equal(losses['louder.loss_0'], whole['louder.loss_0'])


def test_whole_batch_without_a_list_of_samples():
    passes = []
    toy = Toy(passes)
    with mmfeataug.attach(toy, [Louder(at='stem')]) as handle:
        handle.only = Choice('louder', 0, samples=2)
        toy.loss(torch.ones(4, 4))
        assert handle.parts == {}
    assert len(passes[-1][1]) == 4


def test_batch_of_no_more_samples_is_left_whole():
    passes = []
    toy = Toy(passes)
    with mmfeataug.attach(toy, [Louder(at='stem')]) as handle:
        handle.only = Choice('louder', 0, samples=3)
        sizes = []
        for size in (4, 3, 2, 5):
            toy_step(toy, size)
            sizes.append(len(passes[-1][0]))
    assert sizes == [3, 3, 2, 3]


def test_two_samples_for_batch_norms_and_nothing_left_behind():
    """The image pooling of DeepLabV3+ cannot normalise one. Random streams and running statistics
    stand where the stock step leaves them."""
    stock, model = build_segmentor(), build_segmentor()
    batch = random_test_batch(model, images=4)
    step(stock, batch)
    after = RandomState()
    sizes = []
    model.decode_head.conv_seg.register_forward_hook(lambda _, args, out: sizes.append(len(out)))
    with mmfeataug.attach(model, [Louder(at='backbone.layer2', bn='frozen')]) as handle:
        handle.only = Choice('louder', 0, samples=1)
        step(model, batch)
        assert RandomState() == after
        assert handle.parts == {'louder': range(2, 4)}
    assert sizes[-1] == 2
    expected = buffers(stock)
    assert all(torch.equal(b, expected[n]) for n, b in buffers(model).items())


def test_bad_view_is_dropped():
    toy = Toy([])
    augmentation = Louder(at='stem')
    augmentation.factor = float('inf')
    with mmfeataug.attach(toy, [augmentation]) as handle:
        handle.only = Choice('louder', 0, samples=2)
        losses = toy_step(toy)
    assert losses['louder.dropped'] == 1
    assert losses['louder.loss_0'] == 0
    assert all(p.grad.isfinite().all() for p in toy.parameters())
