# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmfeataug.functional import (
    deviation,
    mean_std,
    perturb_statistics,
    reinject_statistics,
    statistic_dims,
    swap_statistics,
)

pytestmark = pytest.mark.methods


@pytest.mark.parametrize('axes', ['channel', 'spatial'])
@pytest.mark.parametrize('shape', [(3, 4, 5, 6), (3, 9, 4)])
def test_swap_is_to_reinject_those_of_another_sample(axes, shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    other = torch.tensor([2, 0, 1])
    swapped, expected = swap_statistics(x, other, axes), reinject_statistics(x, x[other], axes)
    torch.testing.assert_close(swapped, expected)
    weights = torch.randn(shape, dtype=torch.float64)
    (found,) = torch.autograd.grad((swapped * weights).sum(), x)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), x)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize('axes', ['channel', 'spatial', 'batch'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_mean_std(axes, dtype):
    """In float32 at least: squares of the half feature overflow."""
    x = (1e3 * torch.randn(2, 5, 4, 3) + 1e3).to(dtype)
    dims = statistic_dims(x, axes)
    mean, std = mean_std(x, dims)
    wide = dtype if dtype == torch.float64 else torch.float32
    assert mean.dtype == std.dtype == wide
    variance, expected = torch.var_mean(x.double(), dims, keepdim=True)
    tolerance = dict(rtol=4 * torch.finfo(wide).eps, atol=2e3 * torch.finfo(wide).eps)
    torch.testing.assert_close(mean.double(), expected, **tolerance)
    torch.testing.assert_close(std.double(), (variance + 1e-5).sqrt(), **tolerance)


@pytest.mark.parametrize('level', [10, 300])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_a_nearly_constant_half_feature(dtype, level):
    """Its large mean cancels."""
    x = (level + 0.01 * torch.randn(2, 3, 8, 8)).to(dtype)
    other = (2 * torch.randn(2, 3, 8, 8)).to(dtype)
    out = reinject_statistics(x, other, 'spatial')
    assert out.dtype == dtype
    expected = reinject_statistics(x.double(), other.double(), 'spatial')
    tolerance = 0.02 + float(expected.abs().max()) * torch.finfo(dtype).eps
    assert float((out - expected).abs().max()) < tolerance


@pytest.mark.parametrize('shape', [(3, 6), (3, 6, 1, 1), (3, 1, 6)])
def test_the_deviation_of_rows(shape):
    """One position has none; global pooling leaves one."""
    rows = torch.randn(3, 6, dtype=torch.float64)
    found = deviation(rows.reshape(shape))
    assert found.dim() == len(shape)
    torch.testing.assert_close(found.flatten(), rows.std(1, correction=0))


@pytest.mark.parametrize(('shape', 'positions'), [((2, 3, 4, 5), (2, 3)), ((2, 7, 3), (1,))])
def test_the_deviation_over_positions(shape, positions):
    x = torch.randn(shape)
    torch.testing.assert_close(deviation(x), x.std(positions, correction=0, keepdim=True))


def column(values):
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)


class TestReinjectStatistics:
    @pytest.mark.parametrize('axes', ['channel', 'spatial', 'batch'])
    def test_same_statistics_change_nothing(self, axes):
        f = torch.randn(2, 4, 3, 3, dtype=torch.float64)
        torch.testing.assert_close(reinject_statistics(f, f, axes), f)

    def test_oracle_channel(self):
        out = reinject_statistics(column([1.0, 2, 4]), column([0.0, 3, 6]))
        expected = torch.tensor([0.381389, 2.345347, 6.273263], dtype=torch.float64)
        torch.testing.assert_close(out.flatten(), expected, atol=1e-6, rtol=0)

    def test_oracle_axes(self):
        clean = torch.tensor([[1.0, 2], [3, 8]], dtype=torch.float64).view(1, 2, 1, 2)
        adversarial = clean + 0.5 * torch.tensor([[1.0, -1], [-1, 1]], dtype=torch.float64).view(
            1, 2, 1, 2
        )
        channel = reinject_statistics(clean, adversarial, 'channel').flatten()
        spatial = reinject_statistics(clean, adversarial, 'spatial').flatten()
        torch.testing.assert_close(
            channel, torch.tensor([1.5, 1.5, 2.5, 8.5]).double(), atol=1e-5, rtol=0
        )
        expected = torch.tensor([1.49776, 1.50224, 2.5, 8.5], dtype=torch.float64)
        torch.testing.assert_close(spatial, expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize('axes', ['channel', 'spatial', 'batch'])
    def test_result_has_the_adversarial_statistics(self, axes):
        clean, adversarial = torch.randn(2, 3, 8, 5, 5, dtype=torch.float64)
        dims = statistic_dims(clean, axes)
        mean, std = mean_std(reinject_statistics(clean, adversarial, axes, eps=0.0), dims, eps=0.0)
        adv_mean, adv_std = mean_std(adversarial, dims, eps=0.0)
        torch.testing.assert_close(mean, adv_mean)
        torch.testing.assert_close(std, adv_std)

    def test_tokens_and_vectors(self):
        tokens = torch.randn(2, 9, 6)
        image = tokens.transpose(1, 2).reshape(2, 6, 3, 3)
        other = torch.randn(2, 9, 6)
        out = reinject_statistics(tokens, other)
        as_image = reinject_statistics(image, other.transpose(1, 2).reshape(2, 6, 3, 3))
        torch.testing.assert_close(out, as_image.flatten(2).transpose(1, 2))
        rows = reinject_statistics(tokens[0], other[0])
        torch.testing.assert_close(rows, out[0])


class TestStatisticDims:
    def test_one_channel(self):
        with pytest.raises(ValueError, match=r"axes='channel'.*\(2, 1, 4, 4\).*or other axes"):
            statistic_dims(torch.zeros(2, 1, 4, 4), 'channel')

    def test_vectors_have_no_space(self):
        with pytest.raises(ValueError, match="axes='spatial'"):
            statistic_dims(torch.zeros(5, 8), 'spatial')

    def test_unknown(self):
        with pytest.raises(ValueError, match='choose one of channel, spatial, batch'):
            statistic_dims(torch.zeros(2, 3, 4, 4), 'pono')


class TestPerturbStatistics:
    """Oracles: values 1, 3, 5, 7 with mean 4."""

    x = torch.tensor([1.0, 3, 5, 7], dtype=torch.float64).view(2, 1, 1, 2)

    @pytest.mark.parametrize(
        ('mean_scale', 'std_scale', 'relu', 'expected'),
        [
            (1.0, 1.0, True, [1, 3, 5, 7]),
            (1.2, 0.8, True, [2.4, 4, 5.6, 7.2]),
            (2.1, -0.1, True, [8.7, 8.5, 8.3, 8.1]),
            (-0.1, 2.1, True, [0, 0, 1.7, 5.9]),
            (-0.1, 2.1, False, [-6.7, -2.5, 1.7, 5.9]),
        ],
    )
    def test_oracles(self, mean_scale, std_scale, relu, expected):
        out = perturb_statistics(self.x, mean_scale, std_scale, relu)
        torch.testing.assert_close(out.flatten(), torch.tensor(expected).double())

    def test_slopes(self):
        """Of the sum: the number of values times the mean toward its factor, 0 toward the other."""
        mean_scale, std_scale = torch.ones(2, dtype=torch.float64, requires_grad=True)
        out = perturb_statistics(self.x, mean_scale, std_scale, relu=False).sum()
        slopes = torch.autograd.grad(out, (mean_scale, std_scale))
        assert [float(s) for s in slopes] == [16, 0]
