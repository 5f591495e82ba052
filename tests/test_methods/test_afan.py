# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A-FAN as a function of features and gradients; no network."""

import pytest
import torch

from mmfeataug.engine import Tail
from mmfeataug.functional import deviation, reinject_statistics
from mmfeataug.methods import AFAN, AdvStyle, SeA


def make_tail(slope, seed=0):
    """A loss that is linear in the features, and a count of its evaluations."""
    calls = []

    def evaluate(features, against=(), slopes=True):
        calls.append([f.clone() for f in features])
        return sum((f * slope).sum() for f in features), [slope.expand_as(f) for f in features]

    tail = Tail(evaluate, torch.Generator().manual_seed(seed))
    return tail, calls


@pytest.fixture
def feature():
    return torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def gradient():
    return torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(2))


def views_of(method, feature, gradient, tail=None):
    tail = tail or make_tail(gradient)[0]
    return list(method.views([feature], [gradient], tail)) if method.accepts([feature]) else []


def test_images_stay_in_range(feature, gradient):
    """Of whatever view; its pixels are grey levels."""
    image, slope = 255 * torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    image[:, :, :2], image[:, :, -2:] = 0, 255
    method = AFAN(
        at='inputs',
        unit='pixel',
        gamma=4.0,
        strengths=(0.5, 1.5),
        reinject=(True, False),
        noise=4.0,
    )
    method.bind(torch.nn.Identity())
    for view in views_of(method, image, slope):
        assert view.features[0].min() >= 0
        assert view.features[0].max() <= 255


@pytest.mark.parametrize('settings', [dict(eps=0.5, steps=3), dict(noise=0.5, gamma=0.0)])
def test_everything_is_counted_in_the_unit(settings):
    feature = torch.randn(2, 3, 40, 40) * torch.tensor([1.0, 100.0, 0.01]).view(1, 3, 1, 1)
    method = AFAN(at='x', unit='std', **{'gamma': 1.0, **settings})
    (view,) = views_of(method, feature, torch.ones_like(feature))
    std = deviation(feature)
    moved = (view.features[0] - feature) / std
    expected = torch.full((3,), 0.5)
    torch.testing.assert_close(moved.amax((0, 2, 3)), expected, rtol=1e-2, atol=0)
    start = AFAN(at='x', unit='std', gamma=0.0, eps=0.5, random_start=True)
    (view,) = views_of(start, feature, torch.ones_like(feature))
    moved = (view.features[0] - feature) / std
    torch.testing.assert_close(moved.amax((0, 2, 3)), expected, rtol=1e-2, atol=0)


def test_a_last_batch_that_is_too_small_has_no_views():
    method = AFAN(at='x', axes='batch', reinject=True, gamma=0.1)
    with pytest.raises(ValueError, match='at least two values'):
        views_of(method, *torch.randn(2, 1, 6))
    assert len(views_of(method, *torch.randn(2, 3, 6))) == 1
    assert views_of(method, *torch.randn(2, 1, 6)) == []


class TestViews:
    def test_strengths_lie_on_one_segment(self, feature, gradient):
        views = views_of(
            AFAN(at='x', unit='absolute', gamma=0.1, strengths=(0.25, 0.5, 1.0)), feature, gradient
        )
        for view, strength in zip(views, (0.25, 0.5, 1.0), strict=True):
            torch.testing.assert_close(view.features[0], feature + strength * 0.1 * gradient.sign())

    def test_reinjection_mask(self, feature, gradient):
        method = AFAN(
            at='x',
            unit='absolute',
            gamma=0.1,
            strengths=(0.5, 1.0),
            reinject=(False, True),
            weight=(0.1, 0.3),
        )
        plain, mixed = views_of(method, feature, gradient)
        torch.testing.assert_close(plain.features[0], feature + 0.05 * gradient.sign())
        expected = reinject_statistics(feature, feature + 0.1 * gradient.sign())
        torch.testing.assert_close(mixed.features[0], expected)
        assert method.weights == (0.1, 0.3)

    def test_first_step_is_free_and_further_ones_ask_the_tail(self, feature, gradient):
        for steps, evaluations in ((1, 0), (2, 1), (5, 4)):
            tail, calls = make_tail(gradient)
            (view,) = views_of(
                AFAN(at='x', unit='absolute', gamma=0.1, steps=steps), feature, gradient, tail
            )
            assert len(calls) == evaluations
            torch.testing.assert_close(view.features[0], feature + steps * 0.1 * gradient.sign())

    def test_projection(self, feature, gradient):
        (view,) = views_of(
            AFAN(at='x', unit='absolute', gamma=0.1, steps=5, eps=0.25), feature, gradient
        )
        torch.testing.assert_close(view.features[0], feature + 0.25 * gradient.sign())

    def test_random_start_stays_in_the_ball_and_repeats(self, feature, gradient):
        method = AFAN(at='x', unit='absolute', gamma=0.01, eps=0.2, random_start=True)
        tail, calls = make_tail(gradient)
        (first,) = views_of(method, feature, gradient, tail)
        (again,) = views_of(method, feature, gradient)
        assert len(calls) == 1
        assert torch.equal(first.features[0], again.features[0])
        assert 0.1 < (first.features[0] - feature).abs().max() <= 0.2 + 1e-6

    def test_noise_in_feature_units(self, feature, gradient):
        (view,) = views_of(AFAN(at='x', unit='absolute', gamma=0.0, noise=0.3), feature, gradient)
        delta = (view.features[0] - feature).abs()
        assert 0.2 < delta.max() <= 0.3 + 1e-6

    def test_unit_std_follows_the_feature_scale(self, feature, gradient):
        method = AFAN(at='x', gamma=0.1, unit='std')
        (small,) = views_of(method, feature, gradient)
        (large,) = views_of(method, feature * 7, gradient)
        torch.testing.assert_close(large.features[0], small.features[0] * 7)
        step = (small.features[0] - feature).abs()
        torch.testing.assert_close(
            step[0, :, 0, 0],
            0.1 * feature[0].flatten(1).std(1, correction=0),
            atol=1e-5,
            rtol=1e-4,
        )

    def test_gamma_zero_gives_the_clean_feature(self, feature, gradient):
        for view in views_of(AFAN(at='x', gamma=0.0, strengths=(0.5, 1.0)), feature, gradient):
            assert torch.equal(view.features[0], feature)

    def test_several_features_move_together(self, feature, gradient):
        method = AFAN(at='x', unit='absolute', gamma=0.1)
        (view,) = method.views(
            [feature, feature * 2], [gradient, -gradient], make_tail(gradient)[0]
        )
        torch.testing.assert_close(view.features[0], feature + 0.1 * gradient.sign())
        torch.testing.assert_close(view.features[1], feature * 2 - 0.1 * gradient.sign())

    def test_inputs_are_left_alone(self, feature, gradient):
        before = feature.clone()
        views_of(
            AFAN(at='x', unit='absolute', gamma=0.1, steps=2, noise=0.1, reinject=True),
            feature,
            gradient,
        )
        assert torch.equal(feature, before)


class TestSettings:
    @pytest.mark.parametrize(
        ('settings', 'active'),
        [
            ({}, True),
            ({'gamma': 0.0}, False),
            ({'strengths': (0.0, 0.0)}, False),
            ({'weight': 0}, False),
            ({'weight': (0.0,)}, False),
            ({'eps': 0.0}, False),
            ({'gamma': 0.0, 'noise': 0.1}, True),
            ({'gamma': 0.0, 'random_start': True, 'eps': 0.1}, True),
        ],
    )
    def test_active(self, settings, active):
        assert AFAN(at='x', **settings).active is active

    @pytest.mark.parametrize(
        ('settings', 'error', 'message'),
        [
            ({'strengths': (0.5, -1.0)}, ValueError, r"strengths=-1\.0 at 'x'.*not negative"),
            ({'strengths': ()}, ValueError, 'at least one strength'),
            ({'strengths': ('big',)}, TypeError, r"strengths='big'.*give a number"),
            (
                {'strengths': (0.5, 1.0), 'reinject': (True,)},
                ValueError,
                'reinject=.*1 entries for 2 strengths',
            ),
            (
                {'strengths': (0.5, 1.0), 'weight': (1.0, 2.0, 3.0)},
                ValueError,
                '3 entries for 2 strengths',
            ),
            ({'gamma': -0.1}, ValueError, 'gamma=-0.1'),
            ({'gamma': float('nan')}, ValueError, 'gamma=nan'),
            ({'gamma': '1/255'}, TypeError, "gamma='1/255'"),
            ({'eps': -1.0}, ValueError, 'eps=-1.0'),
            ({'steps': 0}, ValueError, 'steps=0'),
            ({'steps': 1.5}, ValueError, 'steps=1.5'),
            ({'axes': 'pono'}, ValueError, "axes='pono'"),
            ({'axes': 'spatial'}, ValueError, "axes='spatial'.*set reinject=True"),
            ({'image_range': (0, 1)}, ValueError, "image_range=.*with unit='std'"),
            ({'steps': True}, ValueError, 'steps=True'),
            ({'unit': 'px'}, ValueError, "unit='px'"),
            ({'bn': 'aux'}, ValueError, "bn='aux'"),
            ({'unit': 'pixel'}, ValueError, 'only at=.inputs'),
            ({'against': 'cls'}, TypeError, 'list of words'),
            ({'against': [['cls'], 'bbox']}, TypeError, 'list of words, or several'),
        ],
    )
    def test_refusals(self, settings, error, message):
        with pytest.raises(error, match=message):
            AFAN(at='x', **settings)

    def test_unknown_setting(self):
        with pytest.raises(TypeError, match='strenghts'):
            AFAN(at='x', strenghts=(1.0,))

    def test_place_must_be_a_path(self):
        with pytest.raises(TypeError, match='at=3'):
            AFAN(at=3)

    def test_one_channel_with_channel_axes(self, gradient):
        one = torch.randn(2, 1, 3, 3)
        with pytest.raises(ValueError, match="axes='channel' needs at least two values"):
            views_of(AFAN(at='x', reinject=True), one, one)


def test_a_random_direction_has_the_size_of_the_adversarial_one(feature, gradient):
    tail, calls = make_tail(gradient)
    settings = dict(at='x', gamma=0.3, unit='std')
    (view,) = views_of(AFAN(**settings, direction='random'), feature, gradient, tail)
    (adversarial,) = views_of(AFAN(**settings), feature, gradient)
    moved, attacked = view.features[0] - feature, adversarial.features[0] - feature
    torch.testing.assert_close(moved.abs(), attacked.abs())
    agree = (moved.sign() == attacked.sign()).float().mean()
    assert 0.2 < agree < 0.8
    assert not calls


@pytest.mark.parametrize('more', [dict(steps=2), dict(random_start=True), dict(against=('cls',))])
def test_a_random_direction_is_one_step(more):
    with pytest.raises(ValueError, match='set steps=1'):
        AFAN(at='x', direction='random', **more)


@pytest.mark.parametrize('bn', ['shared', 'frozen', 'separate', 'eval'])
@pytest.mark.parametrize('kind', [AFAN, AdvStyle, SeA])
def test_the_gradient_of_the_clean_pass_is_that_of_its_batch_norms(kind, bn, feature, gradient):
    """Views that have others are attacked with them."""
    tail, calls = make_tail(-gradient)
    (view,) = views_of(kind(at='x', bn=bn), feature, gradient, tail)
    other = bn in ('separate', 'eval')
    attacked = -gradient if other else gradient
    (expected,) = views_of(kind(at='x'), feature, attacked)
    torch.testing.assert_close(view.features[0], expected.features[0])
    assert len(calls) == other
