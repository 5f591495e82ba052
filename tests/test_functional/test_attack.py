# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmfeataug.functional import (
    ascend,
    interpolate,
    l2_step,
    project_l2,
    project_linf,
    signed_step,
    uniform_in_ball,
)


class TestSignedStep:
    def test_oracle(self):
        # L = 2a - 3b + 0c at (1, 1, 1), one step of 1/255.
        x = torch.ones(3, dtype=torch.float64)
        out = signed_step(x, torch.tensor([2.0, -3.0, 0.0], dtype=torch.float64), 1 / 255)
        expected = torch.tensor([1.003921569, 0.996078431, 1.0], dtype=torch.float64)
        torch.testing.assert_close(out, expected, atol=1e-9, rtol=0)

    def test_leaves_input_alone(self):
        x = torch.zeros(4)
        signed_step(x, torch.ones(4), 0.5)
        assert x.eq(0).all()

    def test_step_per_channel(self):
        out = signed_step(
            torch.zeros(1, 2, 1, 1),
            torch.ones(1, 2, 1, 1),
            torch.tensor([1.0, 3.0]).view(1, 2, 1, 1),
        )
        assert out.flatten().tolist() == [1.0, 3.0]


class TestProjectLinf:
    def test_stays_in_the_ball_and_moves_no_more_than_needed(self):
        generator = torch.Generator().manual_seed(0)
        center, x = (
            torch.randn(2, 3, 4, generator=generator),
            torch.randn(2, 3, 4, generator=generator),
        )
        out = project_linf(x, center, 0.1)
        assert ((out - center).abs() <= 0.1 + 1e-6).all()
        inside = (x - center).abs() <= 0.1
        assert torch.equal(out[inside], x[inside])

    def test_radius_zero_is_the_center(self):
        assert project_linf(torch.ones(3), torch.zeros(3), 0.0).eq(0).all()


class TestInterpolate:
    def test_oracle_five_points(self):
        points = interpolate(torch.zeros(1), torch.tensor([0.8]), [0.0, 0.25, 0.5, 0.75, 1.0])
        torch.testing.assert_close(torch.cat(points), torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8]))

    def test_ends_are_exact(self):
        a, b = torch.randn(5), torch.randn(5)
        start, end = interpolate(a, b, [0, 1])
        assert torch.equal(start, a)
        assert torch.equal(end, b)


class TestL2Step:
    def test_oracle(self):
        # Gradients (3, 4) and (0, 0): a step of 10 goes (6, 8) along the first, nowhere along the
        # second.
        x = torch.ones(2, 2, dtype=torch.float64)
        grad = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
        expected = torch.tensor([[7.0, 9.0], [1.0, 1.0]], dtype=torch.float64)
        torch.testing.assert_close(l2_step(x, grad, 10.0), expected)

    def test_tiny_gradients(self):
        x = torch.zeros(1, 2)
        grad = torch.tensor([[3e-30, 4e-30]])
        torch.testing.assert_close(l2_step(x, grad, 1.0), torch.tensor([[0.6, 0.8]]))

    def test_is_the_steepest(self):
        generator = torch.Generator().manual_seed(0)
        grad = torch.randn(1, 50, generator=generator)
        best = (l2_step(torch.zeros(1, 50), grad, 1.0) * grad).sum()
        others = torch.nn.functional.normalize(torch.randn(99, 50, generator=generator), dim=1)
        assert (others @ grad[0] < best).all()

    def test_a_vector_is_one_sample(self):
        out = l2_step(torch.zeros(2), torch.tensor([3.0, 4.0]), 5.0)
        torch.testing.assert_close(out, torch.tensor([3.0, 4.0]))


class TestProjectL2:
    def test_oracle(self):
        center = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
        # (4, 5) is at distance 5, (1, 2) at distance 1.
        x = torch.tensor([[4.0, 5.0], [1.0, 2.0]], dtype=torch.float64)
        out = project_l2(x, center, 2.0)
        expected = torch.tensor([[2.2, 2.6], [1.0, 2.0]], dtype=torch.float64)
        torch.testing.assert_close(out, expected)

    def test_nearest_point_of_the_ball(self):
        generator = torch.Generator().manual_seed(0)
        x, center = (torch.randn(4, 3, 5, generator=generator) for _ in range(2))
        out = project_l2(x, center, 0.5)
        length = (out - center).flatten(1).norm(dim=1)
        torch.testing.assert_close(length, torch.full((4,), 0.5))
        nearest = (out - x).flatten(1).norm(dim=1)
        for _ in range(20):
            other = center + 0.5 * torch.stack(
                [uniform_in_ball(center[0], 'l2', generator) for _ in range(4)]
            )
            assert (nearest <= (other - x).flatten(1).norm(dim=1) + 1e-6).all()

    def test_radius_zero_is_the_center(self):
        assert project_l2(torch.ones(2, 3), torch.zeros(2, 3), 0.0).eq(0).all()
        assert project_l2(torch.zeros(2, 3), torch.zeros(2, 3), 0.0).eq(0).all()


class TestUniformInBall:
    def test_linf(self):
        draw = uniform_in_ball(torch.empty(4000), 'linf', torch.Generator().manual_seed(0))
        assert draw.abs().max() <= 1
        assert draw.std() == pytest.approx(3**-0.5, rel=0.05)
        assert draw.mean() == pytest.approx(0, abs=0.03)

    def test_l2_fills_the_ball(self):
        # Half of a disc's area lies within the radius 0.5 ** 0.5.
        generator = torch.Generator().manual_seed(0)
        draws = [uniform_in_ball(torch.empty(2), 'l2', generator).norm() for _ in range(2000)]
        lengths = torch.stack(draws)
        assert lengths.max() <= 1 + 1e-6
        assert (lengths < 0.5**0.5).float().mean() == pytest.approx(0.5, abs=0.04)

    def test_same_generator_same_draw(self):
        a, b = (
            uniform_in_ball(torch.empty(3, 2), 'l2', torch.Generator().manual_seed(5))
            for _ in range(2)
        )
        assert torch.equal(a, b)


class TestAscend:
    def test_oracle(self):
        # Climbs -(x - 3)^2 from 0 by signed steps of 2 within 5 of 0: 2, 4, 2.
        seen = []

        def slope(points):
            seen.append(points[0].item())
            return [-2 * (points[0] - 3)]

        def move(points, gradients):
            return [signed_step(points[0], gradients[0], 2.0).clamp(-5, 5)]

        (end,) = ascend([torch.zeros(1)], slope, move, steps=3)
        assert seen == [0.0, 2.0, 4.0]
        assert end.item() == 2.0

    def test_first_gradient_is_not_asked_for(self):
        asked = []

        def slope(points):
            asked.append(points)
            return [torch.ones(1)]

        def move(points, gradients):
            return [points[0] + gradients[0]]

        (end,) = ascend([torch.zeros(1)], slope, move, 2, first=[torch.full((1,), 10.0)])
        assert end.item() == 11.0
        assert len(asked) == 1
