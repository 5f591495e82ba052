# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Paired seeds: p and intervals against SciPy, and against what can be counted by hand."""

import itertools
import json

import numpy as np
import pytest
from mmengine.config import Config
from scipy import stats

from mmfeataug.evaluation import against, by_task, compare_tables, read_runs, trained_on
from mmfeataug.evaluation.comparison.runs import read_run
from mmfeataug.evaluation.comparison.significance import (
    Difference,
    least_p,
    over_images,
    paired_difference,
)
from tests.test_evaluation.test_runs import make_run, table

GAINS = [1.9, 0.3, 2.4, -0.6, 1.1, 0.8, 1.5]


def counted_by_hand(values):
    """Share of all signs whose mean is as far from 0."""
    means = [
        abs(np.mean(np.multiply(signs, values)))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    return np.mean([m >= abs(np.mean(values)) - 1e-9 for m in means])


@pytest.mark.parametrize('n', [2, 3, 5, 6, 7])
def test_p_counts_signs(n):
    found = paired_difference(GAINS[:n])
    assert found.p == pytest.approx(counted_by_hand(GAINS[:n]))
    assert found.mean == pytest.approx(np.mean(GAINS[:n]))
    assert found.n == n


def test_six_of_six_are_the_fewest():
    assert paired_difference([1.0, 2.0, 1.5, 0.5, 3.0]).p == 2 / 2**5
    assert paired_difference([1.0, 2.0, 1.5, 0.5, 3.0, 1.0]).p == 2 / 2**6
    assert [least_p(n) for n in (1, 5, 6)] == [1.0, 0.0625, 0.03125]


def test_p_and_interval_of_many_are_scipys():
    values = np.random.default_rng(1).normal(0.4, 1.0, 30)
    found = paired_difference(values)
    # A sign-flip test and a t-test agree on so many normal values.
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.02)
    interval = stats.bootstrap((values,), np.mean, method='BCa', n_resamples=20000)
    assert found.low == pytest.approx(interval.confidence_interval.low, abs=0.08)
    assert found.high == pytest.approx(interval.confidence_interval.high, abs=0.08)


@pytest.mark.parametrize('n', [2, 3, 6])
def test_interval_of_a_few_pairs_covers_the_mean(n):
    draws = np.random.default_rng(0).normal(1.0, 2.0, (400, n))
    found = [paired_difference(values) for values in draws]
    covered = np.mean([d.low <= 1.0 <= d.high for d in found])
    # 0.95 expected; BCa covers 0.48 to 0.85.
    assert 0.91 < covered < 0.99


def test_words():
    def of(*values, **options):
        return paired_difference(values).verdict(**options)

    assert of(1.0) == of(1.0, 2.0, 3.0, 4.0, 5.0) == 'too few seeds to tell'
    six = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert of(*six) == 'better'
    assert of(*six, less_is_better=True) == 'worse'
    assert of(*(-d for d in six)) == 'worse'
    assert of(1.0, -1.0, 2.0, -2.0, 0.5, 0.2) == 'not told apart'


def test_odd_values():
    assert paired_difference([]) is None
    assert paired_difference([float('nan')]) is None
    assert paired_difference([2.0]) == Difference(2.0, None, None, None, 1)
    alike = paired_difference([0.1] * 6)
    assert (alike.low, alike.high, alike.p) == (pytest.approx(0.1), pytest.approx(0.1), 2 / 2**6)
    none = paired_difference([0.0] * 6)
    assert (none.p, none.low, none.high) == (1.0, 0.0, 0.0)


def test_over_images():
    gain = np.random.default_rng(0).normal(1.0, 2.0, 80)
    found = over_images(lambda numbers: gain[numbers].mean(), 80, resamples=999)
    interval = stats.bootstrap((gain,), np.mean, method='BCa').confidence_interval
    assert found.mean == pytest.approx(gain.mean())
    assert found.low == pytest.approx(interval.low, abs=0.08)
    assert found.high == pytest.approx(interval.high, abs=0.08)
    assert (found.p, found.over) == (None, 'images')
    assert found.verdict() == 'too few seeds to tell'


# Runs on disk.

JPEG = [dict(type='RandomJPEG')]
NOISY = [dict(type='mmfeataug.FMA', at='backbone.layer1')]


def run(folder, clean, noise, fog, seed=None, augmentations=(), steps=None):
    """A work directory with a table and a config."""
    make_run(folder, table(clean, {'gaussian_noise': {1: noise}, 'fog': {1: fog}}))
    text = f'randomness = dict(seed={seed})\n' if seed is not None else ''
    if augmentations:
        hook = dict(type='mmfeataug.FeatureAugHook', augmentations=list(augmentations))
        text += f'custom_hooks = [{hook!r}]\n'
    (folder / 'cfg.py').write_text(text)
    if steps:
        (folder / 'cost.json').write_text(json.dumps({'stock_steps': steps}))
    return folder


def compared(folder, runs):
    specs = [
        f'{name}={run(folder / f"{name}{i}", *values)}'
        for name, of_name in runs.items()
        for i, values in enumerate(of_name)
    ]
    (one,) = compare_tables('detection', by_task(read_runs(specs))['detection'])
    return against(one, 'm', 'base')


def test_runs_are_paired_by_seed_not_by_order(tmp_path):
    found = compared(
        tmp_path,
        {
            'base': [(50.0, 10.0, 20.0, 0), (60.0, 20.0, 30.0, 1), (10.0, 1.0, 1.0, 7)],
            'ours': [(63.0, 30.0, 40.0, 1), (51.0, 12.0, 26.0, 0)],
        },
    )['ours']
    # 63 - 60 and 51 - 50; by order it would be 63 - 50 and 51 - 60.
    assert found.differences['P'].mean == 2.0
    assert found.differences['P'].low == pytest.approx(2 - 12.706, abs=0.001)
    assert found.differences['mPC'].mean == pytest.approx((10 + 4) / 2)
    assert found.differences['worst'].mean == pytest.approx((10 + 2) / 2)
    assert found.note == 'seeds 7 are left out: only one of the two has them'


def test_without_seeds_by_order_and_it_is_said(tmp_path):
    found = compared(
        tmp_path,
        {'base': [(50.0, 1, 2), (60.0, 1, 2)], 'ours': [(51.0, 1, 2), (64.0, 1, 2), (9.0, 1, 2)]},
    )['ours']
    assert found.differences['P'].mean == 2.5
    assert 'in the order given' in found.note
    assert '1 run(s) are left' in found.note


def test_near_and_far_from_the_training(tmp_path):
    found = compared(
        tmp_path,
        {'base': [(50.0, 10.0, 20.0, 0)], 'ours': [(50.0, 30.0, 21.0, 0, NOISY)]},
    )['ours']
    assert found.seen == ['gaussian_noise']
    assert (found.near.mean, found.far.mean) == (20.0, 1.0)
    assert found.differences['mPC'].mean == 10.5


def test_unseen_corruptions_near_the_training_are_left_out(tmp_path):
    """Impulses are near noise, rain is not."""
    for name, more in {'base': (0.0, 0.0), 'ours': (40.0, 2.0)}.items():
        folder = run(tmp_path / name, 50.0, 1.0, 1.0, 0, NOISY if name == 'ours' else ())
        values = dict(salt_and_pepper={1: 10 + more[0]}, rain={1: 10 + more[1]}, fog={1: 5.0})
        make_run(folder, table(50.0, values))
    specs = [f'{name}={tmp_path / name}' for name in ('base', 'ours')]
    (one,) = compare_tables('detection', by_task(read_runs(specs))['detection'])
    ours = against(one, 'm', 'base')['ours']
    assert ours.unseen.mean == 2.0
    assert ours.differences['unseen'].mean == 21.0
    assert ours.differences['mPC'].mean == 0.0


def test_other_test_sets_are_compared_too(tmp_path):
    for name, night in {'base': 30.0, 'ours': 34.0}.items():
        folder = run(tmp_path / name, 50.0, 1.0, 1.0, 0)
        # No set takes the place of a figure.
        also = {'night': {'m': night}, 'weather': {'m': 99.0}, 'P': {'m': 99.0}}
        one = dict(table(50.0, {'fog': {1: 2.0}}), also=also)
        make_run(folder, one)
    specs = [f'{name}={tmp_path / name}' for name in ('base', 'ours')]
    (one,) = compare_tables('detection', by_task(read_runs(specs))['detection'])
    assert one.also[0] == 'night'
    summary = one.summary['m']['ours']
    assert [summary[k].mean for k in ('night', 'weather', 'P')] == [34.0, 2.0, 50.0]
    assert against(one, 'm', 'base')['ours'].differences['night'].mean == 4.0


def test_other_versions_of_the_corruptions_are_said(tmp_path):
    for name, version in {'base': '1', 'ours': '2'}.items():
        made_with = {'libraries': {'kornia': version}}
        make_run(tmp_path / name, dict(table(50.0, {'fog': {1: 2.0}}), made_with=made_with))
    specs = [f'{name}={tmp_path / name}' for name in ('base', 'ours')]
    (one,) = compare_tables('detection', by_task(read_runs(specs))['detection'])
    assert 'corrupted by different versions: kornia 1; kornia 2' in one.notes[0]


def test_no_corruption_was_trained_on(tmp_path):
    found = compared(tmp_path, {'base': [(50.0, 10.0, 20.0, 0)], 'ours': [(50.0, 30.0, 21.0, 0)]})[
        'ours'
    ]
    assert (found.seen, found.near) == ([], None)
    assert found.far == found.differences['mPC']


def test_cost_is_read_and_a_broken_one_named(tmp_path):
    folder = run(tmp_path / 'a', 50.0, 1.0, 2.0, steps=1.5)
    assert read_run(folder).stock_steps == 1.5
    (folder / 'cost.json').write_text('{}')
    with pytest.raises(ValueError, match=r'cost.json is no .*: it has no stock_steps'):
        read_run(folder)


# What a config trains on.


def steps(*pipeline):
    return dict(train_dataloader=dict(dataset=dict(dataset=dict(pipeline=list(pipeline)))))


@pytest.mark.parametrize(
    ('cfg', 'near', 'not_near'),
    [
        (steps(dict(type='Resize')), (), ('fog', 'gaussian_noise', 'brightness')),
        (steps(dict(type='torchvision/ColorJitter')), ('brightness', 'rgb_shift'), ('fog',)),
        (steps(dict(type='mmdet.PhotoMetricDistortion')), ('brightness', 'contrast'), ('fog',)),
        (steps(dict(type='Albu', transforms=[dict(type='MotionBlur')])), ('zoom_blur',), ('fog',)),
        (steps(dict(type='mmdet.Corrupt', corruption='fog')), ('fog',), ('snow', 'glass_blur')),
        (steps(dict(type='Corrupt', corruption='shot_noise')), ('gaussian_noise',), ('fog',)),
        (steps(dict(type='RandomPlasmaShadow')), ('plasma_brightness',), ('brightness', 'rain')),
        (
            dict(model=dict(augmentations=[dict(type='mmfeataug.DistortImages')])),
            ('glass_blur', 'contrast'),
            ('snow',),
        ),
        (
            dict(model=dict(augmentations=[dict(type='DistortImages', distortions=JPEG)])),
            ('jpeg_compression',),
            ('glass_blur', 'gaussian_noise'),
        ),
        (
            dict(custom_hooks=[dict(type='Hook', augmentations=NOISY)]),
            ('gaussian_noise', 'defocus_blur'),
            ('fog',),
        ),
        (
            dict(model=dict(augmentations=[dict(type='StabilityTraining', at='a')])),
            ('impulse_noise',),
            ('defocus_blur',),
        ),
        (dict(test_dataloader=dict(dataset=dict(type='Corrupt'))), (), ('fog',)),
    ],
)
def test_trained_on(cfg, near, not_near):
    found = trained_on(Config(cfg))
    assert set(near) <= found.keys()
    assert not found.keys() & set(not_near)
    assert all(found.values())
