# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import numpy as np
import pytest
import torch

from mmfeataug.visualization import draw_surface, loss_surface, to_array


def bowl(points):
    """(x - 1)^2 + 4 y^2 of a feature (x, y)."""
    (point,) = points
    return float((point[0] - 1) ** 2 + 4 * point[1] ** 2)


def plane(count=5):
    zero = torch.zeros(2)
    directions = [torch.tensor([2.0, 0.0])], [torch.tensor([0.0, 1.0])]
    ticks = []
    losses = loss_surface(bowl, [zero], directions, count, lambda: ticks.append(1))
    assert len(ticks) == count**2
    return losses


def test_oracle():
    losses = plane()
    x, y = np.meshgrid(np.linspace(-2, 2, 5), np.linspace(-1, 1, 5))
    np.testing.assert_allclose(losses, (x - 1) ** 2 + 4 * y**2, rtol=1e-6)
    assert losses[2, 2] == 1.0


@pytest.mark.parametrize('points', [1, 4])
def test_middle_has_to_be_a_point(points):
    with pytest.raises(ValueError, match=f'points={points}'):
        plane(points)


@pytest.mark.parametrize('flat', [False, True])
def test_pictures(flat):
    losses = np.ones((5, 5)) if flat else plane()
    height, width, _ = to_array(draw_surface({'a': losses, 'b': losses + 1}, 'title')).shape
    assert width > height


def test_a_batch_without_a_finite_loss_is_refused():
    with pytest.raises(ValueError, match=r'not finite anywhere.*take another batch'):
        draw_surface({'a': np.full((3, 3), np.inf)}, 'title')
