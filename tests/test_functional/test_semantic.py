# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import pytest
import torch
from torch.nn import functional as F

from mmfeataug.functional import labels_from_gradient, semantic_direction

pytestmark = pytest.mark.methods

X = torch.tensor([[1.0, 0], [0.6, 0.8], [0, 1]], dtype=torch.float64)
Y = torch.tensor([0, 0, 1])


def slope(x, weight, label):
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(x @ weight.t(), label), x)
    return grad


class TestSemanticDirection:
    """Oracles: W = I, temperature .1, eta .8."""

    def oracle(self, alpha):
        x = X.clone().requires_grad_()
        (grad,) = torch.autograd.grad(0.1 * F.cross_entropy(x / 0.1, Y), x)
        return F.normalize(X + 0.8 * semantic_direction(X, grad, alpha), dim=1)

    def test_sharp(self):
        expected = [[0.780869, 0.624695], [0.351123, 0.936329], [0.624695, 0.780869]]
        torch.testing.assert_close(
            self.oracle(0.01), torch.tensor(expected).double(), atol=2e-6, rtol=0
        )

    def test_soft(self):
        expected = [[0.817330, 0.576170], [0.375266, 0.926917], [0.583191, 0.812335]]
        torch.testing.assert_close(
            self.oracle(0.5), torch.tensor(expected).double(), atol=2e-6, rtol=0
        )

    def test_no_row_has_a_part_in_its_own_direction(self):
        """Even where the gradient points at the row itself and the temperature is tiny."""
        x = torch.eye(4, dtype=torch.float64)
        direction = semantic_direction(x, x, 1e-4)
        assert direction.isfinite().all()
        assert (direction.diagonal() == 0).all()

    def test_one_row(self):
        with pytest.raises(ValueError, match='at least two rows'):
            semantic_direction(X[:1], X[:1], 0.1)


class TestLabelsFromGradient:
    def test_softmax(self):
        weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
        x = torch.randn(40, 16, generator=torch.Generator().manual_seed(1))
        label = torch.arange(40) % 5
        found, known = labels_from_gradient(slope(x, weight, label), weight)
        assert known.all()
        assert torch.equal(found, label)

    def test_sigmoid_background_has_no_label(self):
        weight = 0.01 * torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
        x = torch.randn(6, 16, requires_grad=True)
        target = torch.zeros(6, 3)
        target[0, 2] = target[4, 1] = 1
        loss = F.binary_cross_entropy_with_logits(x @ weight.t(), target)
        (grad,) = torch.autograd.grad(loss, x)
        found, known = labels_from_gradient(grad, weight)
        assert known.tolist() == [True, False, False, False, True, False]
        assert (found[0], found[4]) == (2, 1)
