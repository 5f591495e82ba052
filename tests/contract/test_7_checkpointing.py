# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 7, activation checkpointing: as without it, but for time and memory."""

import copy

import pytest
import torch
from mmengine.runner import turn_on_activation_checkpointing

import mmfeataug
from mmfeataug.engine import TapError, tail_shares
from mmfeataug.engine.checkpointing import Region
from tests.contract.cases import afan, deeplab_r50, faster_rcnn_swin
from tests.models import (
    buffers,
    build_classifier,
    build_detector,
    build_segmentor,
    classifier_cfg,
    step,
)
from tests.oracle import difference, double, double_precision, held_against_reference


@pytest.fixture(autouse=True)
def _double():
    with double_precision():
        yield


def vit():
    """Of mmpretrain, which has no switch of its own: mmengine's checkpoints its blocks."""
    arch = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)
    backbone = dict(type='VisionTransformer', arch=arch, img_size=64, drop_path_rate=0.2)
    return build_classifier({**classifier_cfg(backbone, 32), 'neck': None})


def checkpointed(model):
    """With all switches on that OpenMMLab has."""
    switches = [m for m in model.modules() if hasattr(m, 'with_cp')]
    for module in switches:
        module.with_cp = True
    if not switches:
        blocks = [f'backbone.layers.{i}' for i in range(len(model.backbone.layers))]
        turn_on_activation_checkpointing(model, blocks)
    return model


@pytest.fixture
def runs(monkeypatch):
    """What ran again."""
    again = []
    original = Region.switch_back
    monkeypatch.setattr(Region, 'switch_back', lambda self: (again.append(self), original(self)))
    return again


def same_as_without(build, entries, runs, **kwargs):
    """Gradients are those of the reference, without checkpointing and with it; so are losses, and
    what batch norms have learnt."""
    model, batch = double(build)
    other = checkpointed(copy.deepcopy(model))
    losses, gradients = held_against_reference(model, entries, batch, **kwargs)
    with mmfeataug.attach(other, entries, clean_weight=0.25, strict=True) as handle:
        found = step(other, copy.deepcopy(batch))
        assert all(tap.memoize for tap in handle.taps)
    assert runs
    assert found[0].keys() == losses.keys()
    assert difference(found[1], gradients) < 1e-9
    for name, value in buffers(model).items():
        torch.testing.assert_close(buffers(other)[name], value)


@pytest.mark.parametrize(
    ('build', 'at', 'learn'),
    [
        (build_detector, 'backbone.layer2', 'network'),
        (deeplab_r50, 'backbone.layer3.0', 'tail'),
        (faster_rcnn_swin, 'backbone.stages.1', 'tail'),
        (faster_rcnn_swin, 'backbone.stages.1', 'skips'),
        (faster_rcnn_swin, 'backbone.stages.1', 'network'),
        (vit, 'backbone.layers.1', 'tail'),
        (vit, 'backbone.layers.1', 'network'),
    ],
)
def test_gradients(build, at, learn, runs):
    same_as_without(build, [afan(at, learn=learn)], runs)


@pytest.mark.parametrize(
    'settings',
    [
        dict(bn='eval'),
        dict(bn='frozen', steps=2, random_start=True),
        dict(bn='shared', side='input'),
    ],
    ids=str,
)
def test_switches_of_a_pass_hold_when_it_runs_again(settings, runs):
    side = settings.pop('side', 'output')
    same_as_without(build_segmentor, [afan('backbone.layer2', side, **settings)], runs)


def test_several_taps(runs):
    paths = ('backbone.layer1.1', 'backbone.layer3', 'backbone')
    entries = [afan(at, strengths=(1.0,), weight=0.2, learn='network') for at in paths]
    same_as_without(build_segmentor, entries, runs)


def test_nested_regions(runs):
    """Those inside run again in the form that they had."""
    model, batch = double(build_segmentor)
    other = checkpointed(copy.deepcopy(model))
    turn_on_activation_checkpointing(other, ['backbone.layer2', 'backbone.layer4'])
    entry = afan('backbone.layer3', learn='network')
    _, gradients = held_against_reference(model, [entry], batch)
    with mmfeataug.attach(other, [entry], clean_weight=0.25, strict=True):
        _, found = step(other, copy.deepcopy(batch))
    assert runs
    assert difference(found, gradients) < 1e-9


class ByModule(torch.nn.Module):
    """A checkpointed module, as in mmseg's UNet."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
        self.stage = torch.nn.ModuleDict(dict(convs=torch.nn.Linear(4, 4)))

    def loss(self, inputs, data_samples=None):
        x = torch.utils.checkpoint.checkpoint(self.stage['convs'], self.stem(inputs))
        return {'loss': self.head(x).square().mean()}

    def parse_losses(self, losses):
        return sum(v for k, v in losses.items() if 'loss' in k), losses


def test_an_error_inside_leaves_nothing():
    """Also while somebody keeps it. The place that is named is not the refused one."""
    model = ByModule()
    with (
        mmfeataug.attach(model, [afan('stage.convs')]),
        pytest.raises(TapError, match="nearest place outside is 'stage'") as kept,
    ):
        model.loss(torch.ones(3, 4))
    with mmfeataug.attach(model, [afan('stem')], clean_weight=0.5):
        losses = model.loss(torch.ones(3, 4))
        model.parse_losses(losses)
    assert 'afan.loss_0' in losses
    assert kept.value


@pytest.mark.parametrize('mode', ['with_cp', 'activation_checkpointing'])
def test_tap_inside(mode):
    """Refused by name, with the nearest place outside."""
    model, batch = double(build_segmentor)
    if mode == 'with_cp':
        checkpointed(model)
    else:
        turn_on_activation_checkpointing(model, 'backbone.layer2.0')
    with (
        mmfeataug.attach(model, [afan('backbone.layer2.0.conv2')]),
        pytest.raises(
            TapError, match=r"'backbone.layer2.0.conv2' is inside.*is 'backbone.layer2.0'"
        ),
    ):
        model.loss(*batch)
    with mmfeataug.attach(model, [afan('backbone.layer2.0')], strict=True):
        step(model, batch)


def test_layer_inside_that_the_hook_drives():
    """It would be gone when the region runs again."""
    model, batch = double(build_segmentor)
    checkpointed(model)
    layer = dict(type='mmfeataug.MixStyle', at='backbone.layer1.0.conv1', prob=1.0)
    with mmfeataug.attach(model, [layer]), pytest.raises(TapError, match=r'inside.*layer1.0'):
        model.loss(*batch)


def test_places_inside_are_not_listed():
    model, batch = double(build_segmentor)
    checkpointed(model)
    places = tail_shares(model, lambda: model.parse_losses(model.loss(*batch))[0], repeats=1)
    assert {'backbone.layer2', 'backbone.layer2.0'} < places.keys()
    assert 'backbone.layer2.0.conv2' not in places


def test_nothing_stays():
    """Detached, the model is checkpointed as it was."""
    kept = torch.utils.checkpoint.CheckpointFunction
    model, batch = double(build_segmentor)
    checkpointed(model)
    with mmfeataug.attach(model, [afan('backbone.layer2')]):
        step(model, batch)
    assert torch.utils.checkpoint.CheckpointFunction is kept


def test_methods_on_copies_of_the_batch(runs):
    """Whose clean pass is watched only."""
    model, batch = double(build_segmentor)
    other = checkpointed(copy.deepcopy(model))
    entry = dict(type='mmfeataug.StabilityTraining', at='decode_head.conv_seg')
    found = []
    for each in (model, other):
        with mmfeataug.attach(each, [entry], clean_weight=0.5):
            found.append(step(each, copy.deepcopy(batch)))
    assert runs
    assert difference(found[1][1], found[0][1]) < 1e-9
    for name, value in buffers(model).items():
        torch.testing.assert_close(buffers(other)[name], value)
