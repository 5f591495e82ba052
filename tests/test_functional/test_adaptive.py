# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""APGD's steps, and the weights of pixels, against values worked out by hand."""

import numpy as np
import pytest
import torch

from mmfeataug.functional import ascend_adaptively, cospgd_weights, segpgd_weights
from mmfeataug.functional.adaptive import checkpoints


def climb(f, slope, start, steps, step, radius=1.0):
    """APGD in one dimension; also the points it went to."""
    met = []

    def evaluate(points):
        x = points[0].item()
        met.append(x)
        return f(x), [torch.tensor([slope(x)], dtype=torch.float64)]

    def project(points):
        return [p.clamp(-radius, radius) for p in points]

    def move(points, gradients, size):
        return project([p + size * g.sign() for p, g in zip(points, gradients, strict=True)])

    first = [torch.tensor([start], dtype=torch.float64)]
    (best,) = ascend_adaptively(first, evaluate, move, project, steps, step)
    return best.item(), met


def test_checkpoints_are_the_papers():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]
    assert checkpoints(1) == [1]


def test_steps_by_hand():
    """f = -(x - 0.3)^2 in [-1, 1], from 0, steps of 2.

    1. no momentum: 0 + 2 is cut to 1. 2. down: -1 is the step; 1 - 0.75 * 2 + 0.25 * 1. 3. up: 1;
    -0.25 + 0.75 * 1.25 - 0.25 * 1.25. Two of three steps have raised the loss, less than 0.75 * 3:
    the step becomes 1, from the best point, which is this one. 4. down to -0.625:
    0.375 - 0.75 * 1 + 0.25 * 0.625.
    """
    best, met = climb(lambda x: -((x - 0.3) ** 2), lambda x: -2 * (x - 0.3), 0.0, 10, 2.0)
    np.testing.assert_allclose(met[:5], [0, 1, -0.25, 0.375, -0.21875], atol=1e-12)
    assert len(met) == 11
    assert best == min(met, key=lambda x: abs(x - 0.3))


def by_the_paper(f, slope, x, steps, size, radius=1.0):
    """Algorithm 1 with lists of all points and losses, in the names of the paper."""
    w, eta = [0, *checkpoints(steps)], [size]
    xs, fs = [x], [f(x)]
    top, f_top, rose = x, fs[0], []
    tops = {0: f_top}
    for k in range(steps):
        z = np.clip(xs[k] + eta[-1] * np.sign(slope(xs[k])), -radius, radius)
        if k == 0:
            new = z
        else:
            new = np.clip(xs[k] + 0.75 * (z - xs[k]) + 0.25 * (xs[k] - xs[k - 1]), -radius, radius)
        xs.append(new)
        fs.append(f(new))
        rose.append(fs[k + 1] > fs[k])
        if fs[-1] > f_top:
            top, f_top = new, fs[-1]
        if k + 1 in w:
            j = w.index(k + 1)
            tops[j] = f_top
            few = sum(rose[w[j - 1] : w[j]]) < 0.75 * (w[j] - w[j - 1])
            same = (j < 2 or eta[-1] == eta[-2]) and tops[j] == tops[j - 1]
            eta.append(eta[-1] / 2 if few or same else eta[-1])
            if few or same:
                xs[-1], fs[-1] = top, f_top
    return top


@pytest.mark.parametrize('start', [-0.9, 0.1, 0.7])
@pytest.mark.parametrize('steps', [7, 10, 40])
def test_a_rough_landscape_is_climbed_as_in_the_paper(start, steps):
    def f(x):
        return np.sin(9 * x) + 0.4 * np.cos(31 * x) + x

    def slope(x):
        return 9 * np.cos(9 * x) - 12.4 * np.sin(31 * x) + 1

    best, met = climb(f, slope, start, steps, 2.0)
    assert best == pytest.approx(by_the_paper(f, slope, start, steps, 2.0), abs=1e-12)
    assert f(best) == pytest.approx(max(map(f, met)))


def test_segpgd_weights():
    wrong = torch.tensor([True, False])
    assert segpgd_weights(wrong, 0, 10).tolist() == [0, 1]
    torch.testing.assert_close(segpgd_weights(wrong, 3, 10), torch.tensor([0.15, 0.85]))


def test_cospgd_weights():
    """Probabilities 0.6, 0.3, 0.1 of length sqrt(0.46)."""
    logits = torch.tensor([0.6, 0.3, 0.1]).log().reshape(1, 3, 1, 1).requires_grad_()
    for label, own in enumerate([0.6, 0.3, 0.1]):
        weight = cospgd_weights(logits, torch.full((1, 1, 1), label))
        assert weight.item() == pytest.approx(own / np.sqrt(0.46), rel=1e-5)
        assert not weight.requires_grad
