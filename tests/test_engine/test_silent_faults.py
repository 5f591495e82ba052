# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What once went wrong without a word."""

import copy
import logging
import math
import random
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import mmfeataug
from mmfeataug.engine import BatchAugmentation, FeatureAugmentation, Plan, TapError, View
from mmfeataug.engine.auxiliary import norms_behind
from mmfeataug.engine.exactness import _deviation
from mmfeataug.methods import AFAN, FMA
from mmfeataug.models import collect, declare
from mmfeataug.registry import AUGMENTATIONS
from tests import reference
from tests.contract.cases import afan
from tests.models import step
from tests.oracle import Unmoved, difference, held_against_reference

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))


class Toy(nn.Module):
    """Two terms; sums them as mmengine does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mid, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def loss(self, inputs, data_samples=None):
        out = self.head(self.mid(self.stem(inputs).relu()).relu())
        return {'loss_one': out.square().mean(), 'loss_two': out.abs().mean()}

    def parse_losses(self, losses):
        return sum(v.mean() for k, v in losses.items() if 'loss' in k), losses


class Weighted(Toy):
    """Knows one of its terms by name."""

    def parse_losses(self, losses):
        weights = {'loss_one': 0.1}
        return sum(weights.get(k, 1) * v.mean() for k, v in losses.items() if 'loss' in k), losses


class Rescaled(Toy):
    """Multiplies whatever it is given."""

    def parse_losses(self, losses):
        return 0.1 * super().parse_losses(losses)[0], losses


class Uncertain(Toy):
    """Weighs its terms by parameters."""

    def __init__(self):
        super().__init__()
        self.log_var = nn.Parameter(torch.tensor([0.3, -0.2]))

    def parse_losses(self, losses):
        total = super().parse_losses({k: v for k, v in losses.items() if k[-3:] not in NAMED})[0]
        for s, key in zip(self.log_var, ('loss_one', 'loss_two'), strict=True):
            total = total + (-s).exp() * losses[key] + s
        return total, losses


NAMED = ('one', 'two')


@pytest.mark.parametrize('kind', [Toy, Weighted, Rescaled, Uncertain])
@pytest.mark.parametrize('learn', ['tail', 'network'])
def test_parse_losses_may_weigh_terms(kind, learn):
    """The summed gradients are multiplied by nothing a second time, in any step."""
    model = kind()
    view = Unmoved(at='stem', weight=0.75, learn=learn)
    for _ in range(3):
        stock = reference.clean_pass(model, (X,), [('stem', 'output')])
        with mmfeataug.attach(model, [view], clean_weight=0.25):
            _, gradients = step(model, (X,))
        expected = dict(stock.gradients)
        if learn == 'tail':
            expected |= {n: 0.25 * g for n, g in expected.items() if n.startswith('stem')}
        assert difference(gradients, expected) < 2e-6


class Ramp(Toy):
    """From the third step on, a tenth."""

    time = 0

    def parse_losses(self, losses):
        return (1.0 if self.time < 2 else 0.1) * super().parse_losses(losses)[0], losses


class Counting(Toy):
    """Weighs by the number of calls."""

    calls = 0

    def parse_losses(self, losses):
        self.calls += 1
        return super().parse_losses(losses)[0] / self.calls, losses


@pytest.mark.parametrize('kind', [Ramp, Counting])
def test_parse_losses_may_change_with_time(kind):
    """An unmoved view of the whole network gives what the stock step gives, in every step."""
    model, stock = kind(), kind()
    view = Unmoved(at='stem', weight=0.5, learn='network')
    with mmfeataug.attach(model, [view], clean_weight=0.5):
        for time in range(4):
            model.time = stock.time = time
            _, ours = step(model, (X,))
            _, theirs = step(stock, (X,))
            assert difference(ours, theirs) < 2e-6
            assert vars(model).get('calls') == vars(stock).get('calls')


def test_terms_may_be_rescaled_on_the_way():
    """By a semi-supervised wrapper, say: no stock term carries what is learnt."""
    model, stock = Toy(), reference.clean_pass(Toy(), (X,)).gradients
    with mmfeataug.attach(model, [Unmoved(at='stem', weight=0.5, learn='network')], 0.5):
        losses = model.loss(X)
        losses['loss_one'] = losses['loss_one'] * 0
        model.parse_losses(losses)[0].backward()
    assert difference({n: p.grad for n, p in model.named_parameters()}, stock) < 2e-6


def test_parse_losses_that_drops_unknown_terms_is_refused():
    class Chosen(Toy):
        def parse_losses(self, losses):
            return losses['loss_one'] + losses['loss_two'], losses

    model = Chosen()
    with (
        mmfeataug.attach(model, [afan('stem')]),
        pytest.raises(ValueError, match=r'Chosen.parse_losses.*multiplies.*by 0.*every term'),
    ):
        model.loss(X)


class Nested(Toy):
    """A block that saves and restores the gradient mode around the tap."""

    def loss(self, inputs, data_samples=None):
        with torch.enable_grad():
            feature = self.stem(inputs)
        return {'loss': self.head(self.mid(feature)).square().mean()}


def test_gradient_mode_that_is_off_behind_the_tap():
    model = Nested()
    with (
        mmfeataug.attach(model, [afan('stem')]),
        pytest.raises(TapError, match=r"gradient mode .* would train nothing; use learn='skips'"),
    ):
        model.loss(X)
    with mmfeataug.attach(model, [Unmoved(at='stem', weight=0.5, learn='network')], 0.5):
        _, gradients = step(model, (X,))
    assert difference(gradients, reference.clean_pass(Nested(), (X,)).gradients) < 2e-6


class Teacher(Toy):
    """Runs the stem without a graph first, as one does for pseudo-labels; a copy of it, only so."""

    def __init__(self):
        super().__init__()
        self.copy = nn.Linear(4, 4).requires_grad_(False)

    def loss(self, inputs, data_samples=None):
        with torch.no_grad():
            target = self.stem(inputs) + self.copy(inputs)
        return {
            'loss': (self.head(self.mid(self.stem(inputs))).sum(1) - target.sum(1)).square().mean()
        }


def test_a_tap_that_runs_without_a_graph_first():
    model = Teacher()
    with mmfeataug.attach(model, [Unmoved(at='stem', weight=0.5, learn='network')], 0.5):
        losses, gradients = step(model, (X,))
    assert losses['unmoved.dropped'] == 0
    assert difference(gradients, reference.clean_pass(Teacher(), (X,)).gradients) < 2e-6
    with (
        mmfeataug.attach(Teacher(), [afan('stem')]) as handle,
        pytest.raises(TapError, match=r"gradient mode .* use learn='skips'"),
    ):
        handle.model.loss(X)


def test_a_tap_that_only_runs_without_a_graph():
    with (
        mmfeataug.attach(model := Teacher(), [afan('copy')]),
        pytest.raises(TapError, match="'copy': the training loss does not depend on what passes"),
    ):
        model.loss(X)


class Reversible(torch.autograd.Function):
    """Calls backward() in its own backward pass."""

    @staticmethod
    def forward(ctx, x, module):
        ctx.module = module
        ctx.save_for_backward(x)
        return module(x)

    @staticmethod
    def backward(ctx, grad):
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            ctx.module(x).backward(grad)
        return x.grad, None


@pytest.mark.parametrize('before', [False, True])
def test_a_backward_pass_inside_of_another_is_refused(before):
    """Each pass of an attack would add a gradient."""

    class Model(Toy):
        def loss(self, inputs, data_samples=None):
            return {
                'loss': self.head(Reversible.apply(self.stem(inputs), self.mid)).square().mean()
            }

    model = Model()
    if before:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
    with (
        mmfeataug.attach(model, [afan('stem')]),
        pytest.raises(ValueError, match=r'2 parameters, such as mid.weight, .* calls backward\(\)'),
    ):
        model.loss(X)


class Branch(Toy):
    """Enters a branch for some batches only, and as often as the feature says."""

    def __init__(self, times=lambda feature: 1):
        super().__init__()
        self.branch, self.__dict__['times'] = nn.Linear(4, 4), times

    def loss(self, inputs, data_samples=None):
        x = self.stem(inputs)
        if inputs.sum() > 0:
            for _ in range(self.times(x)):
                x = self.branch(x)
        return {'loss': self.head(self.mid(x)).square().mean()}


class Compare(BatchAugmentation):
    active = True

    def losses(self, inputs, clean, network, generator):
        (features,) = network(inputs * 1.1)
        yield (features - clean[0]).square().mean()


@pytest.mark.parametrize('entry', [AFAN(at='branch', gamma=0.1), Compare(at='branch')])
def test_a_later_batch_that_does_not_reach_the_tap(entry):
    model, ones = Branch(), torch.ones(3, 4)
    stock = reference.clean_pass(Branch(), (-ones,)).gradients
    keys = []
    with mmfeataug.attach(model, [entry]):
        for batch in (ones, -ones, ones):
            losses, gradients = step(model, (batch,))
            keys.append([k.partition('.')[2] for k in losses if k.startswith(entry.name)])
            # mmengine shows the last value of what is not logged.
            assert losses[f'{entry.name}.skipped'] == (batch is not ones)
            if batch is not ones:
                assert difference(gradients, stock) < 1e-6
    assert keys[1] == ['dropped', 'skipped']
    assert 'loss_0' in keys[0]
    assert 'loss_0' in keys[2]


def test_the_first_batch_that_does_not_reach_the_tap_is_an_error():
    with mmfeataug.attach(model := Branch(), [afan('branch')]), pytest.raises(TapError):
        model.loss(-torch.ones(3, 4))


def test_a_view_that_goes_another_way_is_dropped(caplog):
    """Behind its first feature it reaches the tap once more than the clean pass did."""
    model, passes = Branch(), []
    model.__dict__['times'] = lambda feature: 1 + (passes[-1] == 'moved')

    class Moving(FeatureAugmentation):
        active = True

        def views(self, features, gradients, tail):
            passes.append('moved')
            yield View([f * 1.1 for f in features], 0.5)

    passes.append('clean')
    with (
        mmfeataug.attach(model, [Moving(at='branch')]),
        caplog.at_level(logging.WARNING, 'mmfeataug'),
    ):
        losses, gradients = step(model, (torch.ones(3, 4),))
    assert losses['moving.dropped'] == 1
    assert 'reaches its place in another way' in caplog.text
    assert all(g.isfinite().all() for g in gradients.values() if g is not None)


@pytest.mark.parametrize('kind', ['view', 'term', 'attack'])
def test_out_of_memory_is_passed_on(kind):
    """Whoever catches it wants to know it as such."""

    class Hungry(FeatureAugmentation):
        active = True

        def views(self, features, gradients, tail):
            if kind == 'view':
                raise torch.cuda.OutOfMemoryError('out of memory')
            tail(features)
            yield View(features, 0.5)

    class HungryTerm(Compare):
        def losses(self, inputs, clean, network, generator):
            raise torch.cuda.OutOfMemoryError('out of memory')
            yield

    model = Toy()
    method = HungryTerm(at='stem') if kind == 'term' else Hungry(at='stem')
    full = [False]
    model.mid.register_forward_hook(
        lambda *_: fail() if kind == 'attack' and full.append(1) is None and len(full) > 3 else None
    )

    def fail():
        raise torch.cuda.OutOfMemoryError('out of memory')

    with mmfeataug.attach(model, [method]), pytest.raises(torch.cuda.OutOfMemoryError):
        model.loss(X)


def test_control_flow_is_not_swallowed():
    """Models catch all exceptions of a branch; a pass over a copy ends all the same."""

    class Careful(Toy):
        passed = 0

        def loss(self, inputs, data_samples=None):
            try:
                x = self.stem(inputs)
            except Exception:
                x = inputs
            Careful.passed += 1
            return {'loss': self.head(self.mid(x)).square().mean()}

    model = Careful()
    with mmfeataug.attach(model, [Compare(at='stem')]):
        model.loss(X)
    assert Careful.passed == 1


@pytest.mark.parametrize('name', sorted(AUGMENTATIONS.module_dict))
def test_names_that_every_logger_takes(name):
    kind = AUGMENTATIONS.get(name)
    settings = dict(at='inputs' if name == 'DistortImages' else 'a')
    if name == 'AdAutoMix':
        settings |= dict(channels=1, compare='b')
    made = [kind(**settings)]
    if name == 'NormalizationPerturbation':
        made.append(kind(at='a', plus=True))
    for method in made:
        assert re.fullmatch(r'[A-Za-z0-9_.-]+', method.name)


def test_a_name_that_some_loggers_refuse():
    class Plus(AFAN):
        name = 'plus+'

    with pytest.raises(ValueError, match=r"'plus\+', which some visualization backends refuse"):
        mmfeataug.attach(Toy(), [Plus(at='stem')])


def test_a_criterion_is_no_loss_of_a_model():
    model = nn.Module()
    model.loss, model.stem = nn.MSELoss(), nn.Linear(4, 4)
    model.parse_losses = lambda losses: (sum(losses.values()), losses)
    with pytest.raises(TypeError, match=re.escape('Module has no loss()')):
        mmfeataug.attach(model, [afan('stem')])


def test_copies_need_one_batch():
    """Models of contrastive learning take a list of views."""

    class Contrastive(Toy):
        def loss(self, inputs, data_samples=None):
            return super().loss(inputs[0])

    with (
        mmfeataug.attach(Contrastive(), [FMA(at=['stem'])]) as handle,
        pytest.raises(TapError, match='fma compares copies of one batch of images, and Contr'),
    ):
        step(handle.model, ([X, X],))


def test_a_teacher_that_nobody_trains_gets_no_second_norms():
    """As in mmdet's SoftTeacher: its passes are not those of a view."""
    model = nn.Module()
    model.student, model.teacher = Toy(), Toy()
    for part in (model.student, model.teacher):
        part.norm = nn.BatchNorm1d(4)
    model.teacher.requires_grad_(False)
    assert norms_behind(model, 'student.stem') == ['student.norm']
    model.teacher.requires_grad_(True)
    assert norms_behind(model, 'student.stem') == ['student.norm', 'teacher.norm']


def test_one_strength():
    assert AFAN(at='x', strengths=0.5).strengths == (0.5,)


def test_one_meaning_of_std():
    """What is trained on is what is tested, for each image whatever its batch."""
    from mmfeataug.evaluation.attacks.pgd import PGD
    from mmfeataug.functional import deviation

    feature = torch.randn(3, 5, 4, 6) * torch.rand(3, 5, 1, 1)
    gradient = torch.randn_like(feature)
    (trained,) = AFAN(at='x', unit='std', gamma=0.1).views([feature], [gradient], None)
    moved = PGD(at='x', unit='std', eps=0.1, steps=1, step_size=0.1, random_start=False)
    (tested,) = moved.views([feature], [gradient], None)
    torch.testing.assert_close(trained.features, tested.features)
    torch.testing.assert_close(
        trained.features[0] - feature, 0.1 * deviation(feature) * gradient.sign()
    )
    (alone,) = AFAN(at='x', unit='std', gamma=0.1).views([feature[:1]], [gradient[:1]], None)
    torch.testing.assert_close(alone.features[0], trained.features[0][:1])


def test_everything_wrong_is_said_at_once():
    model = Toy()
    model.head.weight.register_hook(lambda g: g)
    entries = [
        dict(type='AFAN', at='stemm'),
        dict(type='AFAN', at='stem', strengths=()),
        dict(type='Nothing', at='stem'),
        dict(type='AdvBN', at='stem', bn='separate'),
    ]
    with pytest.raises(ValueError, match='6 things cannot be') as caught:
        mmfeataug.attach(model, entries, clean_weight=0)
    for part in ('stemm', 'strengths=()', 'Nothing', "bn='separate'", 'gradient hook', 'clean_w'):
        assert part in str(caught.value)
    assert 'loss' not in vars(model)


def test_state_that_is_set_on_the_handle_stays():
    """The handle stands where losses keep things, and is none of them."""
    model = Toy()
    with mmfeataug.attach(model, [afan('stem')]) as handle:
        model.loss(X)
        handle.noted = ['something']
        model.loss(X)
        assert handle.noted == ['something']
        copy.deepcopy(model)


class Embedded(nn.Module):
    """A parameter of the feature's own shape is added to it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.position = nn.Linear(4, 4), nn.Parameter(torch.randn(1, 4))
        self.head = nn.Linear(4, 2)

    def loss(self, inputs, data_samples=None):
        return {'loss': self.head((self.stem(inputs) + self.position).tanh()).square().mean()}

    parse_losses = Toy.parse_losses


@pytest.mark.parametrize('learn', ['tail', 'skips', 'network'])
@pytest.mark.parametrize('at', ['stem', 'head'])
def test_one_tensor_for_two_gradients(learn, at):
    """Autograd gives the parameter and the feature the same one."""
    side = 'output' if at == 'stem' else 'input'
    entries = [afan(at, side, gamma=0.1, learn=learn), afan('stem', gamma=0.2, learn='network')]
    held_against_reference(Embedded(), entries, (X[:1],), limit=2e-6)


def test_an_attack_that_goes_another_way_makes_no_view():
    """Evaluating its points reaches the tap once more than the clean pass did."""
    model, passes = Branch(), ['clean']
    model.__dict__['times'] = lambda feature: 1 + (passes[-1] == 'moved')

    class Asking(FeatureAugmentation):
        active = True

        def views(self, features, gradients, tail):
            passes.append('moved')
            tail([f * 1.1 for f in features])
            yield View(features, 0.5)

    with mmfeataug.attach(model, [Asking(at='branch')]):
        losses, gradients = step(model, (torch.ones(3, 4),))
    assert losses['asking.dropped'] == 1
    assert all(g.isfinite().all() for g in gradients.values() if g is not None)


def test_what_was_reached_is_resumed():
    ones = torch.ones(3, 4)
    with mmfeataug.attach(first := Branch(), [afan('branch'), Compare(at='branch')]) as handle:
        first.loss(ones)
        state = handle.state_dict()
    with mmfeataug.attach(second := Branch(), [afan('branch'), Compare(at='branch')]) as handle:
        handle.load_state_dict(state)
        losses = second.loss(-ones)
    assert losses['afan.skipped'] == losses['compare.skipped'] == 1


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda f: View([f[0][:1]], 0.5), r'shapes \[\(1, 4\)\]; give .* of shapes \[\(6, 4\)\]'),
        (lambda f: View(f[0], 0.5), 'view 0 has features of shapes'),
        (lambda f: View([f[0].int()], 0.5), 'floating-point'),
        (lambda f: View([*f, *f], 0.5), 'view 0 has features of shapes'),
        (lambda f: View(f, '0.5'), "weight='0.5': give a finite number"),
        (lambda f: View([f[0].add_(1)], 0.5), 'changes the clean features in place'),
    ],
)
def test_a_view_that_would_be_broadcast_or_cast(make, message):
    class Wrong(FeatureAugmentation):
        active = True

        def views(self, features, gradients, tail):
            yield make(features)

    with (
        mmfeataug.attach(model := Toy(), [Wrong(at='stem')]),
        pytest.raises(RuntimeError, match=message),
    ):
        model.loss(X)


def test_the_lists_of_a_method_are_its_own():
    class Greedy(FeatureAugmentation):
        active = True

        def views(self, features, gradients, tail):
            features[0] = features[0] + 1
            yield View(features, 0.5)

    with mmfeataug.attach(model := Toy(), [Greedy(at='stem')]):
        losses = model.loss(X)
    assert losses['greedy.linf'] == pytest.approx(1, abs=1e-6)


def test_views_that_train_nothing_say_so():
    model = Toy()
    for part in (model.mid, model.head):
        part.requires_grad_(False)
    with (
        mmfeataug.attach(model, [afan('stem', gamma=0.1)]),
        pytest.warns(UserWarning, match="its views train nothing with learn='tail'"),
    ):
        model.loss(X)


def test_clean_weight_falls_as_the_views_come():
    """Over a warm-up, the objective has one scale."""
    view = Unmoved(at='stem', weight=0.5, learn='network')
    stock = reference.clean_pass(Toy(), (X,)).gradients
    for ramp in (1e-3, 0.5, 1.0):
        with mmfeataug.attach(model := Toy(), [view], clean_weight=0.5) as handle:
            handle.plan = Plan(ramp=ramp)
            _, gradients = step(model, (X,))
        assert difference(gradients, stock) < 2e-6


def test_own_parameters_in_half_precision():
    """A view that has to be run again in float32 has its graph still, and so has a second one."""

    class Learnt(FeatureAugmentation):
        active = True

        def bind(self, model):
            self.size = model.size

        def views(self, features, gradients, tail):
            share = self.size.sigmoid()
            for sign in (1, -1):
                yield View([f + sign * 1e-4 * share for f in features], 0.5)

    model = Toy()
    model.size = nn.Parameter(torch.zeros(1))
    with (
        mmfeataug.attach(model, [Learnt(at='stem')]),
        pytest.warns(UserWarning, match='float32'),
        torch.autocast('cpu', torch.bfloat16),
    ):
        losses = model.loss(X)
    model.parse_losses(losses)[0].backward()
    assert model.size.grad.isfinite().all()


@pytest.mark.parametrize(
    ('ours', 'clean', 'deviation'),
    [
        (float('nan'), 0.0, math.inf),
        (float('nan'), float('nan'), 0.0),
        (float('inf'), 1.0, math.inf),
        (1.0 + 1e-9, 1.0, 1e-9),
        (2.0, 1.0, 1.0),
    ],
)
def test_deviations_of_a_replay(ours, clean, deviation):
    pair = ({'loss': torch.tensor(v, dtype=torch.float64)} for v in (ours, clean))
    assert _deviation(*pair) == pytest.approx(deviation, rel=1e-5)


def test_what_a_frozen_copy_declares_is_left_out():
    """As the teacher of a semi-supervised detector has it, which is built from one config."""

    def build(frozen):
        part = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).requires_grad_(not frozen)
        return declare(part, [dict(type='AFAN', at='0')])

    def places(*frozen):
        return [entry['at'] for entry in collect(nn.ModuleList(map(build, frozen)))]

    assert places(False, True) == ['0.0']
    assert places(True, False) == ['1.0']
    # The only one there is may be frozen: what comes behind it is trained.
    assert places(True) == ['0.0']
    assert places(False, False) == ['0.0', '1.0']


DRAWS = (lambda: torch.rand(()).item(), np.random.rand, random.random)
"""From each global stream."""


class DrawnViews(FeatureAugmentation):
    active = True

    def __init__(self, drawn, **kwargs):
        super().__init__(**kwargs)
        self.drawn = drawn

    def views(self, features, gradients, tail):
        self.drawn.append([draw() for draw in DRAWS])
        tail(features)
        self.drawn.append([draw() for draw in DRAWS])
        yield View([f + 0.1 for f in features], 0.5)


class DrawnTerms(BatchAugmentation):
    active = True

    def __init__(self, drawn, **kwargs):
        super().__init__(**kwargs)
        self.drawn = drawn

    def losses(self, inputs, clean, network, generator):
        self.drawn.append([draw() for draw in DRAWS])
        (features,) = network(inputs)
        self.drawn.append([draw() for draw in DRAWS])
        yield features.square().mean()


class ListedViews(DrawnViews):
    def views(self, *args):
        return list(super().views(*args))


@pytest.mark.parametrize('kind', [DrawnViews, DrawnTerms, ListedViews])
def test_draws_from_global_streams_do_not_freeze(kind):
    """The engine puts these streams back, so that a training that draws nothing else would see the
    same draws in each iteration."""
    found, after = [], []
    with mmfeataug.attach(Toy(), [kind(drawn := [], at='mid')]) as handle:
        for iteration in (0, 1, 1):
            handle.plan = Plan(iteration)
            np.random.seed(0)
            random.seed(0)
            step(handle.model, (X,))
            after.append([draw() for draw in DRAWS])
            found.append(list(drawn))
            drawn.clear()
    assert found[1] == found[2], 'a resumed run draws the same'
    assert after[0] == after[1], 'the training draws what it would without'
    for values in zip(*found[0], *found[1], strict=True):
        assert len(set(values)) == 4


@dataclass
class Output:
    feature: torch.Tensor


class Packed(nn.Module):
    def forward(self, x):
        return Output(x)


class Carrying(Toy):
    """The images have another name, and one module returns no tensor."""

    def __init__(self):
        super().__init__()
        self.packed = Packed()

    def loss(self, batch_inputs, data_samples=None):
        return super().loss(self.packed(batch_inputs).feature)


def test_a_layer_that_sees_no_feature_says_so():
    layer = dict(type='NormalizationPerturbation', at='packed')
    with (
        mmfeataug.attach(model := Carrying(), [layer]),
        pytest.raises(TapError, match=r"at='packed': .* holds no floating-point tensor"),
    ):
        model.loss(X)


def test_images_may_have_any_name():
    stock = Carrying().loss(X)
    with mmfeataug.attach(model := Carrying(), [afan('mid')], clean_weight=1.0):
        for losses in (model.loss(data_samples=None, batch_inputs=X), model.loss(X)):
            assert losses['loss_one'] == stock['loss_one']
            assert 'afan.loss_0' in losses


def test_warm_up_is_of_views():
    """Methods that change the clean pass act from the first iteration on."""
    layer = dict(type='MoEx', at='stem', prob=1.0)
    with mmfeataug.attach(model := Toy(), [layer, afan('mid')]) as handle:
        handle.plan = Plan(ramp=0.0)
        (noisy,) = [name for name, a in handle.augmentations.items() if a.in_place]
        assert handle.acts(noisy)
        assert not handle.acts('afan')
        losses = model.loss(X)
    assert 'afan.loss_0' not in losses
    assert losses['loss_one'] != Toy().loss(X)['loss_one']
