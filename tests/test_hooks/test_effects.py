# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Warnings of views that change nothing, or everything."""

import pytest
import torch

from mmfeataug.hooks import FeatureAugHook
from mmfeataug.hooks.effects import EffectWatch
from mmfeataug.methods import AFAN, AdvBN, MixStyle, SeA
from tests.test_hooks.test_feature_aug_hook import make_runner


def said(rows, epochs=1, augmentation=None):
    """Warnings of a watch that sees these effects (distance, loss, clean loss) in each epoch."""
    watch, found = EffectWatch({'afan': augmentation or AFAN(at='mid')}, count=2), []
    for epoch in range(epochs):
        for _ in range(4):
            effects = {'afan': torch.tensor(rows)} if watch.wants(epoch) else {}
            found += watch.add(effects)
    return found


@pytest.mark.parametrize(
    ('row', 'words'),
    [
        # A rise of 0.3 is wanted: by the rise, but no further than one deviation.
        ([0.004, 1.006, 1.0], ['nearly the clean features', '0.40%', 'gamma=12 instead of 0.25']),
        # Without a rise: by the distance.
        ([0.004, 0.99, 1.0], ['0.40%', 'loss 0.99 beside 1', 'gamma=16 instead of 0.25']),
        ([0.25, 15.0, 1.0], ['drown', 'gamma=0.0054 instead of 0.25']),
        ([0.25, 1.2, 1.0], []),
    ],
)
def test_what_is_said_at_once(row, words):
    messages = said([row, [0.0, 0.9, 1.0]], epochs=3)
    assert len(messages) == bool(words)
    assert all(word in messages[0] for word in words)


def test_a_flat_loss_is_said_when_the_network_has_had_time_to_learn():
    flat = [[0.1, 1.005, 1.0]]
    assert said(flat) == []
    (message,) = said(flat, epochs=4)
    assert 'nearly the clean one' in message
    assert 'try gamma=2.5 instead of 0.25' in message


@pytest.mark.parametrize(
    ('augmentation', 'row', 'words'),
    [
        (AFAN(at='mid', eps=0.005), [0.005, 0.99, 1.0], 'try eps=0.25 instead of 0.005'),
        (AFAN(at='mid', gamma=0.005, eps=1), [0.005, 0.99, 1.0], 'try gamma=0.25 instead of'),
        (AdvBN(at='mid', eps=0.01), [0.005, 0.99, 1.0], 'try eps=0.5 instead of 0.01'),
        (AdvBN(at='mid', step_size=0.01), [0.005, 0.99, 1.0], 'try step_size=0.5 instead of'),
        # It normalises what it has moved.
        (SeA(at='mid'), [0.005, 0.99, 1.0], 'try eta=1 instead of 0.8'),
        (SeA(at='mid', eta=1.5), [0.005, 0.99, 1.0], 'try an earlier place'),
        (SeA(at='mid', eta=1.5), [0.25, 15.0, 1.0], 'try eta=0.032 instead of 1.5'),
    ],
)
def test_the_setting_that_limits_the_move(augmentation, row, words):
    (message,) = said([row], augmentation=augmentation)
    assert words in message


def test_a_method_without_a_strength():
    (message,) = said([[0.001, 1.0, 1.0]], augmentation=MixStyle(at='mid', as_view=True))
    assert message.endswith('try an earlier place')


def test_measured_in_few_iterations():
    watch, wanted = EffectWatch({'afan': AFAN(at='mid')}, count=2), []
    for iteration in range(12):
        wanted.append(watch.wants(iteration // 6))
        # Every other iteration has views.
        there = wanted[-1] and iteration % 2
        watch.add({'afan': torch.tensor([[0.1, 2.0, 1.0]])} if there else {})
    assert wanted == [True] * 4 + [False] * 2 + [True] * 4 + [False] * 2


def test_views_that_are_always_dropped_are_said_once(tmp_path, monkeypatch):
    hook = FeatureAugHook([dict(type='mmfeataug.AFAN', at='backbone.layer2', gamma=1e36)])
    runner, warned = make_runner(tmp_path, hook, epochs=3), []
    monkeypatch.setattr(runner.logger, 'warning', lambda text, *args: warned.append(text % args))
    runner.train()
    (idle,) = [text for text in warned if 'nothing could be trained on' in text]
    assert 'afan at backbone.layer2: in its first 5 iterations' in idle


def test_who_has_acted_once_is_not_idle():
    watch = EffectWatch({'afan': AFAN(at='mid')}, count=2)
    assert not [w for acted in (True, False, False, False) for w in watch.idle({'afan': acted})]


def test_in_a_run(tmp_path, monkeypatch):
    hook = FeatureAugHook([dict(type='mmfeataug.AFAN', at='backbone.layer2', gamma=1e-4)])
    runner, warned, noted = make_runner(tmp_path, hook, epochs=3), [], []
    monkeypatch.setattr(runner.logger, 'warning', lambda text, *args: warned.append(text % args))
    monkeypatch.setattr(runner.logger, 'info', lambda text, *args: noted.append(text % args))
    runner.train()
    near = [text for text in warned if 'nearly the clean features' in text]
    assert len(near) == 1
    assert all(text.startswith('FeatureAugHook: afan at backbone.layer2: ') for text in near)
    line = 'FeatureAugHook: objective = 0.50 clean + 0.50 afan = 1.00'
    assert noted.count(line) == 1
    logged = {key.removeprefix('train/') for key in runner.message_hub.log_scalars}
    assert {'afan.rise', 'feature_aug.clean_weight'} <= logged
    assert runner.message_hub.get_scalar('train/feature_aug.clean_weight').current() == 0.5
