# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import pytest
import torch
from torch import nn

from mmfeataug.engine.gradients import GradientSum, all_finite


@pytest.fixture
def parameters():
    return [
        nn.Parameter(torch.zeros(2)),
        nn.Parameter(torch.zeros(3)),
        nn.Parameter(torch.zeros(1)),
    ]


class TestGradientSum:
    def test_backward_writes_the_sum(self, parameters):
        collected = GradientSum(parameters)
        collected.add([torch.ones(2), None, None])
        collected.add([torch.ones(2) * 2, torch.ones(3), None])
        collected.attach_to(torch.tensor(5.0)).backward()
        assert parameters[0].grad.tolist() == [3.0, 3.0]
        assert parameters[1].grad.tolist() == [1.0, 1.0, 1.0]

    def test_parameter_that_was_not_reached_keeps_none(self, parameters):
        collected = GradientSum(parameters)
        collected.add([torch.ones(2), None, None])
        collected.attach_to(torch.tensor(5.0)).backward()
        assert parameters[1].grad is None
        assert parameters[2].grad is None

    def test_incoming_gradient_scales(self, parameters):
        collected = GradientSum(parameters)
        collected.add([torch.ones(2), None, None])
        (collected.attach_to(torch.tensor(5.0)) * 0.25).backward()
        assert parameters[0].grad.tolist() == [0.25, 0.25]

    def test_accumulates_into_what_is_there(self, parameters):
        for _ in range(2):
            collected = GradientSum(parameters)
            collected.add([torch.ones(2), None, None])
            collected.attach_to(torch.tensor(0.0)).backward()
        assert parameters[0].grad.tolist() == [2.0, 2.0]

    def test_second_backward_says_why(self, parameters):
        collected = GradientSum(parameters)
        collected.add([torch.ones(2), None, None])
        value = collected.attach_to(torch.tensor(0.0))
        value.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match=r'differentiated twice.*call backward\(\) once'):
            value.backward()

    def test_nothing_collected_is_a_constant(self, parameters):
        assert not GradientSum(parameters).attach_to(torch.tensor(1.0)).requires_grad


@pytest.mark.parametrize(
    ('values', 'finite'),
    [([1.0, -2.0], True), ([1.0, float('nan')], False), ([float('-inf')], False)],
)
def test_all_finite(values, finite):
    assert all_finite([torch.ones(2), None, torch.tensor(values)]) is finite


def test_large_half_precision_is_finite():
    assert all_finite([torch.full((4,), 6e4, dtype=torch.float16)])


def test_nothing_is_finite():
    assert all_finite([])
    assert all_finite([None])


def test_gradients_that_share_memory_are_added_once(parameters):
    """autograd may return one tensor for two parameters, or one expanded from a single value."""
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    collected = GradientSum([a, b])
    for _ in range(2):
        loss = ((a + b) * torch.tensor([1.0, 3.0])).sum() + a.sum() + b.sum()
        collected.add(torch.autograd.grad(loss, [a, b]))
    (collected.attach_to(torch.tensor(0.0)) * 0.5).backward()
    assert a.grad.tolist() == b.grad.tolist() == [2.0, 4.0]
    single = GradientSum([a])
    single.add(torch.autograd.grad(a.sum(), [a]))
    single.add(torch.autograd.grad(a.sum(), [a]))
    assert single.gradients[0].tolist() == [2.0, 2.0]
