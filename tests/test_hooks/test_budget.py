# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The budget: its plan for known costs, on a clock that the test sets; and in a real run."""

import pytest

from mmfeataug.engine import Choice
from mmfeataug.hooks import FeatureAugHook
from mmfeataug.hooks.budget import Budget, Plan
from tests.test_hooks.test_feature_aug_hook import AUGMENTATION, Spy, make_runner

WEIGHTS = {'afan': [0.1, 0.3], 'afan2': [0.1]}
COSTS = {'afan': 0.6, 'afan2': 0.2}


def measure(factor, iterations=400):
    """Run a budget on models of known cost; returns it and the cost of each iteration."""
    clock = [0.0]
    budget, spent = Budget(factor, list(WEIGHTS), 0, lambda: clock[0]), []
    for i in range(iterations):
        turn = budget.begin(i)
        cost = 1.0
        if isinstance(turn, Choice):
            cost += COSTS[turn.name]
        elif turn:
            cost += sum(COSTS[n] * len(w) for n, w in WEIGHTS.items())
        clock[0] += cost
        spent.append(cost)
        budget.end(WEIGHTS if isinstance(turn, Choice) else {}, i)
    return budget, spent


@pytest.mark.parametrize('factor', [1.05, 1.15, 1.4, 2.0, 2.4, 3.0])
def test_average_holds(factor):
    budget, spent = measure(factor)
    average = sum(spent) / len(spent)
    assert average <= factor * 1.03
    # One view drawn by weight costs 0.52 on average, all of them 1.4.
    expected = 1 + (1.4 if factor >= 2.4 else min(factor - 1, 0.52))
    assert budget.plan.cost == pytest.approx(expected)
    assert sum(spent[100:]) / len(spent[100:]) == pytest.approx(expected, rel=0.03)


def test_weights_of_what_is_drawn_sum_to_those_of_all():
    budget, _ = measure(1.3)
    total = sum(map(sum, WEIGHTS.values()))
    turns = [budget.plan.turn(i, 0) for i in range(500, 3500)]
    drawn = [t for t in turns if t]
    for turn in drawn:
        assert WEIGHTS[turn.name][turn.index] * turn.factor == pytest.approx(total)
    share = sum(t.name == 'afan' and t.index == 1 for t in drawn) / len(drawn)
    assert share == pytest.approx(0.6, abs=0.05)


def test_turns_depend_on_the_iteration_alone():
    plan = Plan(10, 0.37, WEIGHTS, 1.2)
    turns = [plan.turn(i, 3) for i in range(100)]
    assert not any(turns[:10])
    assert sum(map(bool, turns)) == int(90 * 0.37)
    assert turns[50:] == [plan.turn(i, 3) for i in range(50, 100)]


@pytest.mark.parametrize('factor', [1, 0.5, '1.15', True])
def test_bad_factor(factor):
    with pytest.raises(ValueError, match=r'budget=.*above 1'):
        FeatureAugHook([AUGMENTATION], budget=factor)


@pytest.mark.parametrize('settings', [dict(interval=2), dict(prob=0.5)])
def test_budget_decides_alone(settings):
    with pytest.raises(ValueError, match='leave interval and prob out'):
        FeatureAugHook([AUGMENTATION], budget=1.2, **settings)


def test_in_a_run_and_after_a_resume(tmp_path):
    """Measured, chosen, kept in the checkpoint, and only one view of two in a step."""
    two = dict(AUGMENTATION, strengths=(0.5, 1.0), random_start=False, weight=(0.1, 0.4))

    def hook():
        return FeatureAugHook([two], clean_weight=0.5, budget=1.5)

    first, spy = hook(), Spy(stop_after=24)
    with pytest.raises(KeyboardInterrupt):
        make_runner(tmp_path, first, by_iter=40, spy=spy).train()
    plan = first._budget.plan
    assert spy.active[:9] == [False] * 5 + [True] * 4
    assert plan.weights == {'afan': [0.1, 0.4]}
    for active, log in zip(spy.active, spy.logs, strict=True):
        views = [v for k, v in log.items() if k.startswith('afan.loss')]
        assert len([v for v in views if v]) == active
    second, spy = hook(), Spy()
    killed = str(tmp_path / 'killed.pth')
    make_runner(tmp_path, second, by_iter=40, spy=spy, load_from=killed, resume=True).train()
    assert second._budget.plan == plan
    expected = [bool(plan.turn(i, 5)) for i in range(24, 40)]
    assert spy.active == expected
