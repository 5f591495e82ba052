# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmfeataug.functional import feature_distance, prediction_divergence

pytestmark = pytest.mark.methods


def row(values):
    return torch.tensor([values], dtype=torch.float64)


class TestFeatureDistance:
    def test_oracles(self):
        x, target = row([1.0, 2, 3, 4]), row([1.0, 2.5, 2, 4])
        assert float(feature_distance(x, target, 'mse')) == 0.3125
        assert float(feature_distance(x, target, 'l2')) == pytest.approx(1.118034, abs=1e-6)
        assert float(feature_distance(x, target, 'l1')) == 0.375

    @pytest.mark.parametrize('norm', ['mse', 'l1', 'l2'])
    def test_same_features(self, norm):
        x = torch.randn(2, 3, 4, 4, requires_grad=True)
        distance = feature_distance(x, x.detach().clone(), norm)
        (grad,) = torch.autograd.grad(distance, x)
        assert distance == 0
        assert (grad == 0).all()

    def test_scaled_channels_count_alike(self):
        target = torch.randn(4, 2, 5, 5, dtype=torch.float64)
        scale = torch.tensor([1.0, 1000.0]).double().view(1, 2, 1, 1)
        noise = 0.1 * torch.randn_like(target)
        small = feature_distance(target + noise, target, scale_channels=True)
        large = feature_distance((target + noise) * scale, target * scale, scale_channels=True)
        torch.testing.assert_close(small, large, rtol=1e-4, atol=0)

    def test_few_values_have_no_deviation_of_their_own(self):
        """As in a last batch of two images, whose features are vectors."""
        target = torch.tensor([[1.0, 5.0], [1.0, 9.0]], dtype=torch.float64)
        found = feature_distance(target + 1, target, scale_channels=True)
        assert float(found) == pytest.approx(1 / float(target.var(correction=0)), rel=1e-4)

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"norm='l3'.*mse"):
            feature_distance(row([1.0]), row([1.0]), 'l3')
        with pytest.raises(ValueError, match='cannot be compared'):
            feature_distance(row([1.0]), row([1.0, 2.0]))


class TestPredictionDivergence:
    """Oracles: P = (.7, .2, .1) on the clean image, (.5, .3, .2) on the copy."""

    clean, copy = row([0.7, 0.2, 0.1]).log(), row([0.5, 0.3, 0.2]).log()

    def test_oracles(self):
        assert float(prediction_divergence(self.copy, self.clean)) == pytest.approx(
            0.085123, abs=1e-6
        )

    def test_sigmoid_sums_over_two_outcomes(self):
        p, q = 0.7, 0.5
        logit = lambda v: torch.tensor([[v / (1 - v)]], dtype=torch.float64).log()  # noqa: E731
        expected = p * torch.tensor(p / q).log() + (1 - p) * torch.tensor((1 - p) / (1 - q)).log()
        found = prediction_divergence(logit(q), logit(p), sigmoid=True)
        assert float(found) == pytest.approx(float(expected), abs=1e-6)

    def test_classes_are_channels(self):
        maps = torch.randn(2, 5, 3, 3), torch.randn(2, 5, 3, 3)
        rows = [m.movedim(1, -1).reshape(-1, 5) for m in maps]
        torch.testing.assert_close(prediction_divergence(*maps), prediction_divergence(*rows))

    def test_other_proposals(self):
        with pytest.raises(ValueError, match='hold'):
            prediction_divergence(torch.zeros(3, 2), torch.zeros(4, 2))
