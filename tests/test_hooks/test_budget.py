# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The budget: its plan for known costs, on a clock that the test sets; and in a real run."""

from dataclasses import asdict
from functools import partial

import pytest

from mmfeataug.engine import Choice
from mmfeataug.hooks import FeatureAugHook
from mmfeataug.hooks.budget import Budget, Plan
from tests.test_hooks.test_feature_aug_hook import AUGMENTATION, Spy, make_runner

WEIGHTS = {'afan': [0.1, 0.3], 'afan2': [0.1]}
COSTS = {'afan': 0.6, 'afan2': 0.2}


def measure(factor, iterations=400, parts=None, overhead=0.0):
    """Run a budget on models of known cost; returns it and the cost of each iteration.

    A part of the batch, of 8, costs its share and ``overhead`` of the rest.
    """
    clock = [0.0]
    budget, spent = Budget(factor, list(WEIGHTS), 0, lambda: clock[0]), []
    for i in range(iterations):
        turn = budget.begin(i)
        cost = 1.0
        if isinstance(turn, Choice):
            share = 1.0 if turn.samples is None else turn.samples / 8
            cost += COSTS[turn.name] * (share + overhead * (1 - share))
        elif turn:
            cost += sum(COSTS[n] * len(w) for n, w in WEIGHTS.items())
        clock[0] += cost
        spent.append(cost)
        measured = isinstance(turn, Choice)
        budget.end(WEIGHTS if measured else {}, i, parts if measured else {})
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


BOTH = {'afan': range(2, 8), 'afan2': range(2, 8)}


@pytest.mark.parametrize(
    ('factor', 'parts', 'overhead', 'samples', 'one'),
    [
        # Of 8 samples, 0.3 / 0.52 fit.
        (1.3, BOTH, 0.0, {'afan': 4, 'afan2': 4}, 0.26),
        # No fewer than two.
        (1.05, BOTH, 0.0, {'afan': 2, 'afan2': 2}, 0.13),
        (1.3, BOTH, 0.5, {'afan': 4, 'afan2': 4}, 0.39),
        # Half the batch for 0.95 of the cost is a bad bargain.
        (1.3, BOTH, 0.9, {}, 0.52),
        # The other one costs 0.04 on average and cannot be divided, which leaves 0.26 of 0.48.
        (1.3, {'afan': range(1, 8)}, 0.0, {'afan': 4}, 0.28),
        (1.03, {'afan': range(1, 8)}, 0.0, {'afan': 1}, 0.1),
        # One view fits as it is, or all.
        (1.6, BOTH, 0.0, {}, 0.52),
        (2.4, BOTH, 0.0, {}, 1.4),
    ],
)
def test_a_part_of_the_batch(factor, parts, overhead, samples, one):
    budget, spent = measure(factor, 1500, parts, overhead)
    plan = budget.plan
    assert plan.samples == samples
    expected = 1 + min(factor - 1, one)
    assert plan.cost == pytest.approx(expected)
    assert plan.rate == pytest.approx(min(1, (factor - 1) / one) if one < 1.4 else 1)
    # The second round is paid for, too.
    assert sum(spent) / len(spent) <= factor * 1.02
    assert sum(spent[500:]) / 1000 == pytest.approx(expected, rel=0.02)
    turns = [t for t in (plan.turn(i, 0) for i in range(500, 1500)) if isinstance(t, Choice)]
    assert all(t.samples == samples.get(t.name) for t in turns)
    assert ('4 samples for afan' in str(plan)) == (samples.get('afan') == 4)


def test_plan_of_an_older_checkpoint():
    plan = Plan(10, 0.37, WEIGHTS, 1.2)
    older = asdict(plan)
    del older['samples']
    assert Plan(**older) == plan


def test_a_view_without_weight_is_not_measured():
    budget = Budget(1.2, ['afan'], 0)
    asked = []
    while budget.plan is None:
        asked.append(budget.begin(0))
        budget.end({'afan': [0.0, 0.5]}, 0)
    assert [c.index for c in asked if c] == [0, 1, 1, 1, 1]


def test_a_view_that_does_not_come_is_waited_for():
    """On this process, or in this iteration: its cost is not that of nothing."""
    now = [0.0]
    budget = Budget(1.2, ['sea'], 0, clock=lambda: now[0])
    steps = 0
    while budget.plan is None:
        turn = budget.begin(steps)
        comes = bool(turn) and steps % 2 == 0
        now[0] += 1.6 if comes else 1.0
        budget.end({'sea': [0.5 if comes else 0.0]} if turn else {}, steps)
        steps += 1
    assert 5 + 8 <= steps <= 5 + 10
    assert budget.plan.rate == pytest.approx(0.2 / 0.6)


def test_a_view_that_never_comes_is_not_waited_for_for_ever():
    budget = Budget(1.2, ['sea'], 0)
    for step in range(40):
        budget.begin(step)
        budget.end({}, step)
    assert budget.plan.rate == 1.0


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
    # Another budget is measured anew.
    third, spy = FeatureAugHook([two], clean_weight=0.5, budget=1.9), Spy()
    make_runner(tmp_path, third, by_iter=36, spy=spy, load_from=killed, resume=True).train()
    assert spy.active[:9] == [False] * 5 + [True] * 4
    assert third._budget.plan.start > 24
    # So are other settings of the method.
    two.update(strengths=(1.0,), weight=0.5)
    fourth, spy = hook(), Spy()
    make_runner(tmp_path, fourth, by_iter=36, spy=spy, load_from=killed, resume=True).train()
    assert fourth._budget.plan.weights in (None, {'afan': [0.5]})
    assert fourth._budget.plan.start > 24


def test_a_part_in_a_run_and_after_a_resume(tmp_path, monkeypatch):
    """On a clock that counts the samples behind the tap: the stock step has four."""
    clock = [0]
    monkeypatch.setattr(
        'mmfeataug.hooks.feature_aug_hook.Budget', partial(Budget, clock=lambda: clock[0])
    )
    two = dict(AUGMENTATION, strengths=(0.5, 1.0), random_start=False, weight=(0.1, 0.4))

    def train(spy, **kwargs):
        hook = FeatureAugHook([two], clean_weight=0.5, budget=1.6)
        runner = make_runner(tmp_path, hook, by_iter=36, spy=spy, **kwargs)
        runner._train_dataloader['batch_size'] = 4
        sizes = []

        def count(module, args, out):
            clock[0] += len(out)
            sizes.append(len(out))

        runner.model.decode_head.conv_seg.register_forward_hook(count)
        return hook, runner, sizes

    spy = Spy(stop_after=32)
    first, runner, _ = train(spy)
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    plan = first._budget.plan
    assert spy.active[:13] == [False] * 5 + [True] * 8
    assert plan.samples == {'afan': 2}
    assert (plan.rate, plan.cost) == (1.0, 1.5)
    spy = Spy()
    second, runner, sizes = train(spy, load_from=str(tmp_path / 'killed.pth'), resume=True)
    runner.train()
    assert second._budget.plan == plan
    assert plan.start < 32
    assert spy.active == [True] * 4
    # After the passes that verify the tap and try the part.
    assert sizes[-6:] == [4, 2] * 3
