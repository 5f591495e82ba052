# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Which iterations have views, and at what strength."""

import mmengine.dataset
import pytest
from torch.utils.data import BatchSampler, DataLoader

from mmfeataug.hooks import Schedule
from mmfeataug.utils.loaders import epoch_length


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        (dict(), [1, 1, 1, 1, 1, 1, 1, 1]),
        (dict(begin=3), [0, 0, 0, 1, 1, 1, 1, 1]),
        (dict(begin=1, end=4), [0, 1, 1, 1, 0, 0, 0, 0]),
        (dict(begin=1, interval=3), [0, 1, 0, 0, 1, 0, 0, 1]),
        (dict(begin=1, by_epoch=True), [0, 0, 0, 0, 1, 1, 1, 1]),
        (dict(end=1, by_epoch=True, interval=2), [1, 0, 1, 0, 0, 0, 0, 0]),
        (dict(begin=8), [0] * 8),
        (dict(begin=2, by_epoch=True, prob=0.5), [0] * 8),
    ],
)
def test_iterations(settings, expected):
    schedule = Schedule(**settings)
    held = [i for i in range(8) if schedule.holds(i, epoch=4)]
    assert {i for i in range(8) if expected[i]} <= set(held)
    if schedule.prob == 1:
        drawn = [int(i in held and schedule.draws(i, epoch=4, seed=0)) for i in range(8)]
        assert drawn == expected
    assert not held or schedule.behind(8, epoch=4) == held[-1] + 1
    if schedule.interval == 1:
        assert schedule.share(8, epoch=4) == schedule.prob * sum(expected) / 8


def test_warmup_is_linear():
    assert [Schedule(warmup=4).ramp(i, 4) for i in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    by_epoch = Schedule(begin=1, warmup=2, by_epoch=True)
    assert [by_epoch.ramp(i, 4) for i in range(4, 12)] == [i / 8 for i in range(8)]
    assert Schedule(begin=3).ramp(3, 4) == 1


def test_draws():
    half = [Schedule(prob=0.5).draws(i, 4, seed=0) for i in range(1000)]
    assert 450 < sum(half) < 550
    assert half == [Schedule(begin=3, prob=0.5).draws(i, 4, seed=0) for i in range(1000)]
    assert half != [Schedule(prob=0.5).draws(i, 4, seed=1) for i in range(1000)]
    assert not any(Schedule(prob=0).draws(i, 4, 0) for i in range(100))


def test_settings_of_the_hook():
    config = dict(type='mmfeataug.FeatureAugHook', augmentations=[], budget=None, interval=4)
    assert Schedule.of(config) == Schedule(interval=4)
    assert Schedule.of(config).share(100, 10) == 0.25
    assert Schedule(by_epoch=True, begin=2, end=7).share(100, 10) == 0.5
    assert Schedule(by_epoch=True, end=70).share(100, 10) == 1.0


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(begin=-1), 'begin=-1'),
        (dict(interval=0), 'interval=0'),
        (dict(warmup=0.5), 'warmup=0.5'),
        (dict(begin=5, end=5), 'end=5 must come after begin=5'),
        (dict(prob=True), 'prob=True: give a probability'),
        (dict(prob=1.5), 'prob=1.5: give a probability'),
        (dict(end=True), 'end=True must come'),
        (dict(by_epoch='epoch'), "by_epoch='epoch': give True or False"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Schedule(**settings)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(), ''),
        (dict(prob=0.5, warmup=100), ''),
        (dict(interval=1000), 'views in 0.10%'),
        (dict(end=1), 'about 1 of 1000, 10 an epoch'),
        (dict(warmup=200, by_epoch=True), 'grow to 50% only'),
    ],
)
def test_schedules_that_leave_next_to_nothing(settings, words):
    found = list(Schedule(**settings).warnings(1000, epoch=10))
    assert bool(found) == bool(words)
    assert all(words in message for message in found)


@pytest.mark.parametrize(
    ('sampler', 'batch_sampler', 'expected'),
    [('DefaultSampler', None, 3), ('InfiniteSampler', None, 3), ('InfiniteSampler', True, 3)],
)
def test_the_length_of_an_epoch_on_four_processes(monkeypatch, sampler, batch_sampler, expected):
    """All of them share the data; the sampler of loops by iterations does not say so."""
    for module in ('mmengine.dataset.sampler', 'mmfeataug.utils.loaders'):
        monkeypatch.setattr(f'{module}.get_world_size', lambda: 4, raising=False)
    monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (0, 4))
    drawn = getattr(mmengine.dataset, sampler)(range(24), seed=0)
    if batch_sampler:
        loader = DataLoader(range(24), batch_sampler=BatchSampler(drawn, 2, drop_last=False))
    else:
        loader = DataLoader(range(24), 2, sampler=drawn)
    assert epoch_length(loader) == expected
