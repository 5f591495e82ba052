# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import torch

from mmfeataug.functional import interpolate, project_linf, signed_step


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
