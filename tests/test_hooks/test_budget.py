# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The budget: its plan for known costs, on a clock that the test sets; and in a real run."""

from functools import partial

import pytest
from mmengine.hooks import Hook

from mmfeataug.engine import Choice
from mmfeataug.hooks import FeatureAugHook, feature_aug_hook
from mmfeataug.hooks.budget import Allowance, Budget
from tests.test_hooks.test_feature_aug_hook import AUGMENTATION, Spy, make_runner

WEIGHTS = {'afan': [0.1, 0.3], 'afan2': [0.1]}
COSTS = {'afan': 0.6, 'afan2': 0.2}


def measure(factor, iterations=1500):
    """Run a budget on models of known cost; returns it and the cost of each iteration."""
    clock = [0.0]
    budget, spent = Budget(factor, list(WEIGHTS), 0, lambda: clock[0]), []
    for i in range(iterations):
        decision = budget.begin(i)
        cost = 1.0
        if isinstance(decision, Choice):
            cost += COSTS[decision.name]
        elif decision:
            cost += sum(COSTS[n] * len(w) for n, w in WEIGHTS.items())
        clock[0] += cost
        spent.append(cost)
        budget.end(WEIGHTS if isinstance(decision, Choice) else {}, i)
    return budget, spent


@pytest.mark.parametrize('factor', [1.05, 1.15, 1.4, 2.0, 2.4, 3.0])
def test_average_holds(factor):
    budget, spent = measure(factor)
    average = sum(spent) / len(spent)
    assert average <= factor * 1.03
    # One view drawn by weight costs 0.52 on average, all of them 1.4.
    expected = 1 + (1.4 if factor >= 2.4 else min(factor - 1, 0.52))
    assert budget.allowance.cost == pytest.approx(expected)
    assert sum(spent[100:]) / len(spent[100:]) == pytest.approx(expected, rel=0.03)


def test_a_view_without_weight_is_not_measured():
    budget = Budget(1.2, ['afan'], 0)
    asked = []
    while budget.allowance is None:
        asked.append(budget.begin(0))
        budget.end({'afan': [0.0, 0.5]}, 0)
    assert [c.index for c in asked if c] == [0, 1, 1, 1, 1]


def test_a_view_that_does_not_come_is_waited_for():
    """On this process, or in this iteration: its cost is not that of nothing."""
    now = [0.0]
    budget = Budget(1.2, ['sea'], 0, clock=lambda: now[0])
    steps = 0
    while budget.allowance is None:
        turn = budget.begin(steps)
        comes = bool(turn) and steps % 2 == 0
        now[0] += 1.6 if comes else 1.0
        budget.end({'sea': [0.5 if comes else 0.0]} if turn else {}, steps)
        steps += 1
    assert 5 + 8 <= steps <= 5 + 10
    assert budget.allowance.prob == pytest.approx(0.2 / 0.6)


def test_a_view_that_never_comes_is_not_waited_for_for_ever():
    budget = Budget(1.2, ['sea'], 0)
    for step in range(40):
        budget.begin(step)
        budget.end({}, step)
    assert budget.allowance.prob == 1.0
    (warning,) = budget.warnings(100)
    assert 'sea made no view' in warning
    assert 'does not count what its views cost' in warning


def test_weights_of_what_is_drawn_sum_to_those_of_all():
    budget, _ = measure(1.3)
    total = sum(map(sum, WEIGHTS.values()))
    turns = [budget.allowance.decide(i, 0) for i in range(500, 3500)]
    drawn = [t for t in turns if t]
    for turn in drawn:
        assert WEIGHTS[turn.name][turn.index] * turn.factor == pytest.approx(total)
    share = sum(t.name == 'afan' and t.index == 1 for t in drawn) / len(drawn)
    assert share == pytest.approx(0.6, abs=0.05)


def test_draws_depend_on_the_iteration_alone():
    allowance = Allowance(10, 0.37, WEIGHTS, 1.2)
    decisions = [allowance.decide(i, 3) for i in range(1000)]
    assert not any(decisions[:10])
    assert sum(map(bool, decisions)) == pytest.approx(990 * 0.37, rel=0.1)
    assert decisions[50:] == [allowance.decide(i, 3) for i in range(50, 1000)]


@pytest.mark.parametrize('factor', [1, 0.5, '1.15', True])
def test_bad_factor(factor):
    with pytest.raises(ValueError, match=r'budget=.*above 1'):
        FeatureAugHook([AUGMENTATION], budget=factor)


@pytest.mark.parametrize('settings', [dict(interval=2), dict(prob=0.5)])
def test_budget_decides_alone(settings):
    with pytest.raises(ValueError, match='leave interval and prob out'):
        FeatureAugHook([AUGMENTATION], budget=1.2, **settings)


class Tick(Hook):
    """A clock on which a view costs 0.6 stock steps, whatever else the machine does."""

    priority = 'VERY_HIGH'

    def __init__(self):
        self.now = 0.0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.now += 1.6 if runner.model.loss.was_active else 1.0


def test_in_a_run_and_after_a_resume(tmp_path, monkeypatch):
    """Measured, chosen, kept in the checkpoint, and only one view of two in a step."""
    tick = Tick()
    timed = partial(Budget, clock=lambda: tick.now)
    monkeypatch.setattr(feature_aug_hook, 'Budget', timed)
    two = dict(AUGMENTATION, strengths=(0.5, 1.0), random_start=False, weight=(0.1, 0.4))

    def hook():
        return FeatureAugHook([two], clean_weight=0.5, budget=1.5)

    first, spy = hook(), Spy(stop_after=24)
    with pytest.raises(KeyboardInterrupt):
        make_runner(tmp_path, first, by_iter=40, spy=spy, hooks=[tick]).train()
    plan = first._budget.allowance
    assert spy.active[:9] == [False] * 5 + [True] * 4
    assert plan.weights == {'afan': [0.1, 0.4]}
    for active, log in zip(spy.active, spy.logs, strict=True):
        views = [v for k, v in log.items() if k.startswith('afan.loss')]
        assert len([v for v in views if v]) == active
    second, spy = hook(), Spy()
    killed = str(tmp_path / 'killed.pth')
    resumed = dict(load_from=killed, resume=True, hooks=[tick])
    make_runner(tmp_path, second, by_iter=40, spy=spy, **resumed).train()
    assert second._budget.allowance == plan
    expected = [bool(plan.decide(i, 5)) for i in range(24, 40)]
    assert spy.active == expected
    # Another budget is measured anew.
    third, spy = FeatureAugHook([two], clean_weight=0.5, budget=1.9), Spy()
    make_runner(tmp_path, third, by_iter=36, spy=spy, **resumed).train()
    assert spy.active[:9] == [False] * 5 + [True] * 4
    assert third._budget.allowance.start > 24
    # So are other settings of the method.
    two.update(strengths=(1.0,), weight=0.5)
    fourth, spy = hook(), Spy()
    make_runner(tmp_path, fourth, by_iter=36, spy=spy, **resumed).train()
    assert fourth._budget.allowance.weights == {'afan': [0.5]}
    assert fourth._budget.allowance.start > 24


def test_a_budget_that_leaves_no_view_says_so(tmp_path, caplog):
    runner = make_runner(tmp_path, FeatureAugHook([AUGMENTATION], budget=1.001), by_iter=12)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    assert 'the last with views is 11, so that none are trained on' in caplog.text
