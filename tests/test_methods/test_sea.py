# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""SeA as a function of features and gradients, and at real classifiers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmfeataug.functional import semantic_direction
from mmfeataug.methods import SeA
from tests.test_methods.test_afan import make_tail

pytestmark = pytest.mark.methods


class Classifier(nn.Module):
    def __init__(self, classes=4, width=8):
        super().__init__()
        self.fc = nn.Linear(width, classes)


def views_of(method, feature, grad):
    tail = make_tail(grad)[0]
    return list(method.views([feature], [grad], tail)) if method.accepts([feature]) else []


class TestRows:
    def test_rows_of_unit_length_are_the_papers(self):
        x = F.normalize(torch.randn(12, 6, dtype=torch.float64), dim=1)
        grad = torch.randn(12, 6, dtype=torch.float64)
        (view,) = views_of(SeA(at='x', alpha=0.1), x, grad)
        expected = F.normalize(x + 0.8 * semantic_direction(x, grad, 0.1), dim=1)
        torch.testing.assert_close(view.features[0], expected)

    def test_others_keep_their_length(self):
        x, grad = torch.randn(2, 12, 6) * torch.tensor([[[3.0]], [[1.0]]])
        (view,) = views_of(SeA(at='x'), x, grad)
        torch.testing.assert_close(view.features[0].norm(dim=1), x.norm(dim=1))

    def test_at_most_so_many_rows_and_only_those_with_a_loss(self):
        x, grad = torch.randn(2, 100, 6)
        grad[50:] = 0
        (view,) = views_of(SeA(at='x', rows=20), x, grad)
        moved = (view.features[0] != x).any(1)
        assert moved[:50].sum() == 20
        assert not moved[50:].any()

    def test_maps_are_rows_of_pixels(self):
        x, grad = torch.randn(2, 3, 6, 4, 5)
        (view,) = views_of(SeA(at='x', rows=1000), x, grad)
        rows = [t.permute(0, 2, 3, 1).reshape(-1, 6) for t in (x, grad)]
        method = SeA(at='x', rows=1000)
        expected = method._move(*rows, torch.Generator().manual_seed(0))
        found = view.features[0].permute(0, 2, 3, 1).reshape(-1, 6)
        torch.testing.assert_close(found, expected)

    def test_memory_is_bounded_on_large_maps(self, monkeypatch):
        from mmfeataug.methods import sea

        sizes = []

        def watched(rows, *args):
            sizes.append(len(rows))
            return semantic_direction(rows, *args)

        monkeypatch.setattr(sea, 'semantic_direction', watched)
        views_of(SeA(at='x', rows=64), *torch.randn(2, 2, 8, 200, 300))
        assert sizes == [64]

    def test_at_least_half_foreground(self):
        torch.manual_seed(0)
        model = Classifier()
        method = SeA(at='fc', background=-1, rows=40)
        method.bind(model)
        x = torch.randn(300, 8, requires_grad=True)
        label = torch.full((300,), 3)
        label[:15] = torch.arange(15) % 3
        (grad,) = torch.autograd.grad(F.cross_entropy(model.fc(x), label), x)
        (view,) = views_of(method, x.detach(), grad)
        moved = (view.features[0] != x).any(1)
        assert moved[:15].all()
        assert moved[15:].sum() == 15

    def test_background_alone_makes_no_view(self):
        model = Classifier()
        method = SeA(at='fc', background=-1)
        method.bind(model)
        x = torch.randn(30, 8, requires_grad=True)
        loss = F.cross_entropy(model.fc(x), torch.full((30,), 3))
        (grad,) = torch.autograd.grad(loss, x)
        assert views_of(method, x.detach(), grad) == []


class TestBadInput:
    def test_one_row(self):
        with pytest.raises(ValueError, match=r'at least two rows.*\(1, 6\)'):
            views_of(SeA(at='x'), *torch.randn(2, 1, 6))

    def test_one_row_at_the_end_of_an_epoch(self):
        method = SeA(at='x')
        assert len(views_of(method, *torch.randn(2, 4, 6))) == 1
        assert views_of(method, *torch.randn(2, 1, 6)) == []

    def test_one_row_on_one_level_of_several(self):
        levels = [torch.randn(1, 6, 4, 4), torch.randn(1, 6, 1, 1)]
        slopes = [torch.randn_like(f) for f in levels]
        assert SeA(at='x').accepts(levels)
        (view,) = SeA(at='x').views(levels, slopes, make_tail(slopes[0])[0])
        assert not torch.equal(view.features[0], levels[0])
        assert torch.equal(view.features[1], levels[1])

    def test_background_needs_a_classifier(self):
        model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        model.append(nn.Conv2d(3, 3, 3)).append(nn.BatchNorm2d(3))
        methods = [SeA(at=at, background=-1) for at in '123']
        for method in (*methods, SeA(at='0', side='output', background=-1)):
            with pytest.raises(ValueError, match='input of a linear classifier'):
                method.bind(model)
        with pytest.raises(ValueError, match='3 features do not tell 5 classes'):
            SeA(at='0', background=-1).bind(nn.Sequential(nn.Linear(3, 5)))

    @pytest.mark.parametrize('background', [4, -5])
    def test_background_is_a_class(self, background):
        with pytest.raises(ValueError, match=f'background={background}.*has 4 classes'):
            SeA(at='0', background=background).bind(nn.Sequential(nn.Linear(5, 4)))

    @pytest.mark.parametrize(
        'settings', [dict(alpha=0), dict(rows=1), dict(rows=True), dict(eta=-1), dict(weight=-0.5)]
    )
    def test_settings(self, settings):
        (name,) = settings
        with pytest.raises(ValueError, match=name):
            SeA(at='x', **settings)
