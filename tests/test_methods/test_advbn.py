# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""AdvBN and AdvStyle as functions of features and gradients; no network."""

import pytest
import torch

from mmfeataug.functional import mean_std, perturb_statistics
from mmfeataug.methods import AdvBN, AdvStyle
from tests.test_methods.test_afan import make_tail

pytestmark = pytest.mark.methods


def scales(view, feature):
    """Mean and deviation of the view's channels in units of the feature's."""
    means, stds = zip(*[mean_std(f, (0, 2, 3), 0.0) for f in (view, feature)], strict=True)
    return (means[0] / means[1]).flatten(), (stds[0] / stds[1]).flatten()


@pytest.fixture
def feature():
    return torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double() + 5


class TestAdvBN:
    def test_same_sign_steps_reach_the_bound(self):
        """Oracle: 1, 1.2, 1.4, ..., 2.0 and then 2.1; the deviations have no slope and stay."""
        slope = torch.ones((), dtype=torch.float64)
        # Sums without rounding.
        feature = torch.tensor([1.0, 3, 5, 7], dtype=torch.float64).view(2, 1, 1, 2)
        for steps, expected in ((1, 1.2), (3, 1.6), (6, 2.1)):
            tail, calls = make_tail(slope)
            (view,) = AdvBN(at='x', steps=steps).views([feature], [], tail)
            mean, std = scales(view.features[0], feature)
            torch.testing.assert_close(mean, torch.full((1,), expected).double())
            torch.testing.assert_close(std, torch.ones(1).double())
            assert len(calls) == steps

    def test_slope_of_the_deviation(self, feature):
        """A loss that grows with the spread makes it grow; the mean stays."""
        center = feature.mean((0, 2, 3), keepdim=True)
        tail, _ = make_tail(feature - center)
        (view,) = AdvBN(at='x', steps=2).views([feature], [], tail)
        mean, std = scales(view.features[0], feature)
        torch.testing.assert_close(std, torch.full((3,), 1.4).double())
        torch.testing.assert_close(mean, torch.ones(3).double(), atol=1e-6, rtol=0)

    def test_shared_by_the_batch(self, feature):
        tail, _ = make_tail(torch.ones((), dtype=torch.float64))
        (view,) = AdvBN(at='x', steps=1).views([feature], [], tail)
        torch.testing.assert_close(view.features[0], perturb_statistics(feature, 1.2, 1.0))

    def test_clamped_behind_a_relu_only(self):
        slope = -torch.ones((), dtype=torch.float64)
        positive = torch.rand(2, 3, 4, 4).double()
        for feature, negative in ((positive, False), (positive - 0.6, True)):
            tail, calls = make_tail(slope)
            (view,) = AdvBN(at='x', steps=6).views([feature], [], tail)
            assert bool((view.features[0] < 0).any()) == negative
            assert all(bool((c[0] < 0).any()) == negative for c in calls)

    def test_attack_in_evaluation_mode(self):
        for bn in ('shared', 'frozen', 'eval', 'separate'):
            assert AdvBN(at='x', bn=bn).attack_bn == 'eval'

    @pytest.mark.parametrize(
        'settings', [dict(steps=0), dict(step_size=-1), dict(eps=float('inf')), dict(weight='a')]
    )
    def test_settings(self, settings):
        (name,) = settings
        with pytest.raises((ValueError, TypeError), match=name):
            AdvBN(at='x', **settings)

    @pytest.mark.parametrize('name', ['eps', 'step_size', 'weight'])
    def test_off(self, name):
        assert not AdvBN(at='x', **{name: 0}).active


class TestAdvStyle:
    @pytest.mark.parametrize('sign', [False, True])
    def test_step(self, sign):
        """Along the gradient: of the mean, the sum over positions; of the deviation, the sum of
        gradient times normalised value."""
        torch.manual_seed(0)
        x, g = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.randn(2, 3, 8, 8).double() / 64
        mean, std = mean_std(x, (2, 3))
        steps = [g.sum((2, 3), keepdim=True), (g * (x - mean) / std).sum((2, 3), keepdim=True)]
        if sign:
            steps = [s.sign() for s in steps]
        settings = dict(sign=True) if sign else {}
        (view,) = AdvStyle(gamma=0.3, **settings).views([x], [g], None)
        found = view.features[0]
        expected = (x - mean) / std * (std + 0.3 * steps[1]) + mean + 0.3 * steps[0]
        torch.testing.assert_close(found, expected)
        assert float((found - x).abs().max()) > 1e-3
