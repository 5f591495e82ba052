# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The statistic family as functions of features; no network."""

import copy

import pytest
import torch
from torch import nn

import mmfeataug
from mmfeataug.engine import Plan
from mmfeataug.functional import mean_std, perturb_statistics
from mmfeataug.methods import DSU, MixStyle, MoEx, NormalizationPerturbation, PAdaIN
from mmfeataug.methods.dsu import uncertainty
from mmfeataug.methods.mixstyle import mix_statistics
from mmfeataug.methods.normalization_perturbation import sensitivity
from mmfeataug.models import declare
from tests.models import build_segmentor, random_test_batch, step

pytestmark = pytest.mark.methods

FAMILY = [
    MixStyle(at='x', prob=1.0),
    DSU(at='x', prob=1.0),
    MoEx(at='x', prob=1.0),
    PAdaIN(at='x', prob=1.0),
    NormalizationPerturbation(at='x', prob=1.0),
    NormalizationPerturbation(at='x', prob=1.0, plus=True),
]
EACH = pytest.mark.parametrize('method', FAMILY, ids=lambda m: m.name)


def maps(*rows):
    """One channel, one row of pixels a sample."""
    return torch.tensor(rows, dtype=torch.float64)[:, None, None, :]


class TestFamily:
    @EACH
    def test_same_shape_and_a_gradient(self, method):
        torch.manual_seed(0)
        for shape in ((4, 6, 5, 5), (4, 9, 6)):
            x = torch.randn(shape, requires_grad=True)
            out = method.transform(x)
            (grad,) = torch.autograd.grad(out.square().sum(), x)
            assert out.shape == x.shape
            assert not torch.equal(out, x)
            assert grad.isfinite().all()

    @EACH
    def test_identity_in_evaluation(self, method):
        layer = nn.Conv2d(3, 6, 1)
        x = torch.randn(4, 3, 5, 5)
        stock = layer(x)
        owner = nn.Sequential(layer)
        copy.deepcopy(method).install(layer, owner)
        layer.eval()  # As a frozen stage is.
        assert not torch.equal(owner(x), stock)
        owner.eval()
        assert torch.equal(owner(x), stock)

    def test_probability(self):
        torch.manual_seed(0)
        method, x = MixStyle(at='x', prob=0.25), torch.randn(4, 2, 3, 3)
        changed = sum(not torch.equal(method.apply(x), x) for _ in range(400))
        assert 70 < changed < 130

    def test_half_precision_keeps_its_type(self):
        out = MixStyle(at='x', prob=1.0).apply((torch.randn(4, 2, 3, 3).bfloat16(), 7))
        assert out[0].dtype == torch.bfloat16
        assert out[1] == 7


class TestOracles:
    def test_mixstyle(self):
        out = mix_statistics(maps([1, 3], [10, 14]), torch.tensor([1, 0]), torch.tensor(0.25))
        expected = maps([7.75, 11.25], [3.25, 5.75])
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)

    def test_np(self):
        x = maps([1, 3, 5, 7])
        out = perturb_statistics(x, 0.5, 1.5, relu=False, mean=x.mean((2, 3), keepdim=True))
        torch.testing.assert_close(out, maps([-2.5, 0.5, 3.5, 6.5]))

    def test_sensitivity(self):
        """1.5 times the deviation over the batch, in shares of the largest."""
        means = torch.tensor([[1.0, 4, 5], [5, 2, 5]])[:, :, None, None].requires_grad_()
        found = sensitivity(means)
        torch.testing.assert_close(found.flatten(), torch.tensor([1.5, 0.75, 0.0]))
        assert not found.requires_grad
        assert not sensitivity(torch.ones(3, 2, 1, 1)).any()

    def test_np_plus_moves_means_as_far_as_they_vary(self):
        """Standard deviation of a mean's relative shift over many draws, by the channel's spread in
        shares of the largest: 0, .28, .56, .84, 1.13 for 0, .25, .5, .75, 1. Contrasts are scaled
        by factors of deviation .75 everywhere."""
        spreads, samples, draws = torch.tensor([0, 0.25, 0.5, 0.75, 1]), torch.randn(6, 1), 1500
        means = 4 + 0.2 * samples * spreads
        x = means[:, :, None, None] + torch.tensor([-1.0, 1.0])
        torch.manual_seed(0)
        method = NormalizationPerturbation(at='x', prob=1.0, plus=True)
        out = torch.stack([method.transform(x) for _ in range(draws)])
        shift = out.mean((3, 4)) / means - 1
        for found, expected in zip(
            shift.transpose(0, 2).flatten(1).std(1), (0, 0.28, 0.56, 0.84, 1.13), strict=True
        ):
            assert float(found) == pytest.approx(expected, abs=0.03)
        contrast = (out[..., 1] - out[..., 0]) / 2
        assert float(contrast.std()) == pytest.approx(0.75, abs=0.02)

    def test_dsu(self):
        sigma = uncertainty(torch.tensor([1.0, 3.0], dtype=torch.float64))
        assert float(sigma) == pytest.approx(2**0.5, abs=1e-6)

    def test_dsu_draws_around_the_own_statistics(self):
        torch.manual_seed(0)
        x = torch.randn(2, 1, 8, 8, dtype=torch.float64) + maps([1.0], [3.0])
        drawn = torch.stack(
            [mean_std(DSU(at='x', prob=1.0).transform(x), (2, 3))[0] for _ in range(3000)]
        )
        own = x.mean((2, 3), keepdim=True)
        torch.testing.assert_close(drawn.mean(0), own, atol=0.1, rtol=0)
        spread = own.std(0).expand(2, 1, 1, 1)
        torch.testing.assert_close(drawn.std(0), spread, atol=0.1, rtol=0)

    @pytest.mark.parametrize(
        ('method', 'dims'), [(MoEx(at='x', prob=1.0), (1,)), (PAdaIN(at='x', prob=1.0), (2, 3))]
    )
    def test_moments_are_those_of_another_sample(self, method, dims):
        x = torch.randn(3, 4, 5, 5, dtype=torch.float64) * torch.arange(1, 4).view(3, 1, 1, 1)
        torch.manual_seed(1)
        other = torch.randperm(3)
        assert other.tolist() != [0, 1, 2]
        torch.manual_seed(1)
        out = method.transform(x)
        for found, expected in zip(mean_std(out, dims), mean_std(x, dims), strict=True):
            torch.testing.assert_close(found, expected[other], atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize(
        ('method', 'reaches'), [(PAdaIN(at='x', prob=1.0), False), (MoEx(at='x', prob=1.0), True)]
    )
    def test_gradient_into_the_other_sample(self, method, reaches, monkeypatch):
        """In pAdaIN the other's statistics are constants: a loss on the first sample moves the
        first one only. In MoEx they are not."""
        circle = torch.tensor([1, 2, 0])
        monkeypatch.setattr(f'{type(method).__module__}.other_samples', lambda feature: circle)
        x = torch.randn(3, 4, 5, 5, dtype=torch.float64, requires_grad=True)
        (grad,) = torch.autograd.grad(method.transform(x)[0].pow(3).sum(), x)
        moved = grad.flatten(1).abs().amax(1) > 1e-9
        assert moved.tolist() == [True, reaches, False]
        # The own part, by the formula: through (x - mu) / sigma only.
        dims = (1,) if reaches else (2, 3)
        one = x[:1].detach().requires_grad_()
        mean, std = mean_std(one, tuple(dims))
        other_mean, other_std = (s.detach() for s in mean_std(x[1:2], tuple(dims)))
        out = (one - mean) / std * other_std + other_mean
        (expected,) = torch.autograd.grad(out.pow(3).sum(), one)
        torch.testing.assert_close(grad[:1], expected)


class TestBadInput:
    @EACH
    def test_batch_of_one(self, method):
        fresh = type(method)(at='backbone.layer1', prob=1.0)
        if method.least_samples == 1:
            assert fresh.apply(torch.randn(1, 2, 3, 3)).shape == (1, 2, 3, 3)
            return
        fresh.least_samples = method.least_samples
        with pytest.raises(ValueError, match=r'at least 2 samples.*batch_size'):
            fresh.apply(torch.randn(1, 2, 3, 3))
        fresh.apply(torch.randn(2, 2, 3, 3))
        last = torch.randn(1, 2, 3, 3)
        assert fresh.apply(last) is last

    @EACH
    def test_small_map(self, method):
        fresh = copy.deepcopy(method)
        small = torch.randn(4, 6, 1, 1)
        if method.name == 'moex':
            assert fresh.apply(small) is not small
            return
        with pytest.raises(
            ValueError, match=rf"{type(method).__name__} at 'x'.*two values.*\(4, 6, 1, 1\)"
        ):
            fresh.apply(small)
        fresh.apply(torch.randn(4, 6, 2, 2))
        assert fresh.apply(small) is small

    @pytest.mark.parametrize(
        ('make', 'message'),
        [
            (lambda: MixStyle(at='x', alpha=0), "alpha=0 at 'x': give a positive"),
            (lambda: MixStyle(at='x', prob=1.5), r'prob=1.5.*from 0 to 1'),
            (lambda: DSU(at='x', factor=-1), 'factor=-1'),
            (lambda: MoEx(at='x', axes='batch'), 'channel, spatial'),
            (lambda: NormalizationPerturbation(at='x', sigma=-0.1), 'sigma=-0.1'),
            (lambda: MixStyle(at='x', as_view=True, weight=-1), 'weight=-1'),
        ],
    )
    def test_settings(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    def test_off(self):
        assert not MixStyle(at='x', prob=0).active
        assert not MixStyle(at='x', as_view=True, weight=0).active
        assert not NormalizationPerturbation(at='x', sigma=0).active


def test_what_is_drawn_lies_around_what_there_is():
    x = torch.randn(4, 6, 5, 5) * torch.rand(4, 6, 1, 1)
    still = [
        DSU(at='x', prob=1.0, factor=0.0),
        NormalizationPerturbation(at='x', prob=1.0, sigma=1e-9),
    ]
    for method in still:
        torch.testing.assert_close(method.transform(x), x)


def test_deviations_are_drawn_as_widely_as_they_vary():
    x = torch.randn(4, 3, 8, 8) * torch.linspace(3, 4, 4).view(4, 1, 1, 1)
    std = mean_std(x, (2, 3), 1e-6)[1]
    for factor in (1.0, 0.5):
        method = DSU(at='x', prob=1.0, factor=factor)
        drawn = torch.stack([mean_std(method.transform(x), (2, 3), 1e-6)[1] for _ in range(2000)])
        expected = factor * std.std(0) * torch.ones_like(std)
        torch.testing.assert_close(drawn.std(0), expected, rtol=0.1, atol=0)


def test_shares_of_mixstyle_are_of_its_beta(monkeypatch):
    import mmfeataug.methods.mixstyle as module

    seen = []
    monkeypatch.setattr(
        module, 'mix_statistics', lambda f, other, share: seen.extend(share.flatten()) or f
    )
    for alpha, pure in ((0.1, 0.75), (1.0, 0.1)):
        seen.clear()
        for _ in range(200):
            MixStyle(at='x', prob=1.0, alpha=alpha).transform(torch.zeros(4, 2, 3, 3))
        share = torch.stack(seen)
        found = ((share < 0.05) | (share > 0.95)).float().mean()
        assert float(found) == pytest.approx(pure, abs=0.08)


def test_views_at_two_places_draw_their_own():
    """And in each iteration others; the clean pass's stream is not theirs."""
    model = build_segmentor()
    batch = random_test_batch(model)
    moved = []
    two = [MixStyle(at=f'backbone.layer{i}', as_view=True, alpha=1.0) for i in (1, 2)]
    for method in two:
        method.transform = lambda f: moved.append(torch.rand(()).item()) or f * 1.01
        method.prob = 1.0
    with mmfeataug.attach(model, two):
        for _ in range(3):
            step(model, batch)
    assert len(set(moved)) == 6


def test_a_view_that_is_no_other_is_none():
    """Whether prob says no or the batch is small: it would be the clean loss, twice."""
    model = build_segmentor()
    batch = random_test_batch(model)
    methods = [
        MixStyle(at='backbone.layer1', as_view=True, prob=prob, alpha=1.0) for prob in (1e-9, 1.0)
    ]
    with mmfeataug.attach(model, methods):
        losses, _ = step(model, batch)
    assert 'mixstyle.loss_0' not in losses
    assert losses['mixstyle2.linf'] > 0


@pytest.mark.parametrize('as_view', [False, True])
def test_one_draw_for_all_levels(as_view):
    """``prob`` is of a call, however many tensors a module returns."""

    class Pyramid(nn.Module):
        def forward(self, x):
            return x, x * 2, x * 3

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.neck, self.head = Pyramid(), nn.Conv2d(3, 1, 1)

        def loss(self, inputs, data_samples=None):
            return {'loss': sum(self.head(x).square().mean() for x in self.neck(inputs))}

        def parse_losses(self, losses):
            return sum(v for k, v in losses.items() if 'loss' in k), losses

    model, seen = Model(), []
    method = NormalizationPerturbation(at='neck', prob=0.5, as_view=as_view)
    method.observer = lambda clean, changed, **_: seen.append(
        [not torch.equal(a, b) for a, b in zip(clean, changed, strict=True)]
    )
    batch = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    with mmfeataug.attach(model, [method]) as handle:
        for i in range(40):
            handle.plan = Plan(i)
            model.loss(batch)
    assert all(len(set(levels)) == 1 for levels in seen)
    assert 10 < sum(levels[0] for levels in seen) < 30


@pytest.mark.parametrize('settings', [dict(weight=0.5), dict(learn='network'), dict(bn='frozen')])
def test_settings_of_a_view_need_a_view(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f'{name} of MixStyle at .*add as_view=True'):
        MixStyle(at='backbone', **settings)
    MixStyle(at='backbone', as_view=True, **settings)


class TestLayersThatAreNotCalled:
    """In place at modules that are entered in other ways than by a call, or not at all."""

    def test_forward_of_a_head(self):
        """mmseg's heads are entered by loss(), which calls self.forward()."""
        model = build_segmentor()
        batch = random_test_batch(model)
        stock, _ = step(model, batch)
        for side in ('input', 'output'):
            method = NormalizationPerturbation(at='decode_head', side=side, prob=1.0)
            with mmfeataug.attach(model, [method]):
                losses, _ = step(model, batch)
            assert losses['decode.loss_ce'] != stock['decode.loss_ce']

    def test_arguments_by_name(self):
        class Encoder(nn.Module):
            def forward(self, *, query):
                return query

        owner = nn.Sequential()
        owner.encoder, x = Encoder(), torch.randn(4, 9, 6)
        method = NormalizationPerturbation(at='encoder', side='input', prob=1.0)
        with_patch = method.around(owner.encoder, 'forward', owner.encoder.forward)
        assert not torch.equal(with_patch(query=x), x)
        method.install(owner.encoder, owner)
        assert not torch.equal(owner.encoder(query=x), x)

    def test_never_called(self):
        model = build_segmentor()
        model.spare = nn.Identity()
        batch = random_test_batch(model)
        with (
            mmfeataug.attach(model, [PAdaIN(at='spare', prob=1.0)]),
            pytest.raises(ValueError, match=r"at='spare'.*not called.*list_taps"),
        ):
            step(model, batch)

    def test_called_before_a_resume(self):
        """A branch that is not taken in the first batch behind it is no fault."""
        model = build_segmentor()
        batch, spare = random_test_batch(model), nn.Conv2d(3, 3, 1)
        model.spare, calls = spare, [True, False]
        loss = type(model).loss

        def sometimes(inputs, samples):
            return loss(model, spare(inputs) if calls.pop(0) else inputs, samples)

        model.loss = sometimes
        with mmfeataug.attach(model, [PAdaIN(at='spare', prob=1.0)]) as handle:
            step(model, batch)
            state = handle.state_dict()
        with mmfeataug.attach(model, [PAdaIN(at='spare', prob=1.0)]) as handle:
            handle.load_state_dict(state)
            step(model, batch)
        assert not calls

    def test_idle_layers_change_nothing(self):
        """Nor cast anything, under autocast."""
        feature = torch.randn(4, 8, 6, 6).bfloat16()
        assert PAdaIN(at='x', prob=0.0).apply(feature) is feature

    def test_never_called_as_declared(self):
        entry = dict(type='PAdaIN', at='decode_head', prob=1.0)
        model = declare(build_segmentor(), [entry])
        batch = random_test_batch(model)
        with pytest.raises(ValueError, match=r"at='decode_head'.*not called"):
            model(*batch, mode='loss')
        # Said once; what goes on in evaluation is none of its business.
        copy.deepcopy(model).eval()(batch[0], mode='tensor')
