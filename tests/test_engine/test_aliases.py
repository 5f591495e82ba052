# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What is written in place, shared, or hidden in containers on the way of a pass: gradients and
losses stay right, and nothing stays alive."""

import copy
import gc
import weakref
from dataclasses import dataclass

import pytest
import torch
from mmengine.structures import InstanceData
from torch import nn

import mmfeataug
from tests import reference
from tests.models import step
from tests.oracle import (
    Unmoved,
    difference,
    double_precision,
    held_against_reference,
    seen_views,
)

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mid, self.tap = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head, self.head2, self.act = nn.Linear(4, 2), nn.Linear(4, 2), nn.ReLU(inplace=True)
        self.same = nn.Identity()
        self.double()

    def loss(self, inputs, data_samples=None):
        return {'loss': sum(t.square().mean() for t in self.outputs(inputs))}

    def parse_losses(self, losses):
        return sum(v.mean() for k, v in losses.items() if 'loss' in k), losses


class WrittenBefore(Toy):
    """A recorded result is written into, and passes the tap by."""

    def outputs(self, inputs):
        x = self.stem(inputs)
        y = self.act(x)
        return self.head(self.tap(y)), self.head2(x)


class PreActivation(Toy):
    def outputs(self, inputs):
        x = self.mid(self.stem(inputs))
        x = x + self.tap(self.act(x)).sigmoid()
        return (self.head(x),)


class WrittenBetween(Toy):
    """What runs between modules writes into recorded results; copies are recorded from the second
    step on."""

    def outputs(self, inputs):
        x = self.stem(inputs)
        y = self.mid(x * 1)
        x += self.act(y * 2)
        y += self.same(x * 3)
        return self.head(self.tap(x * 1)), self.head2(x * y)


class WrittenAtTap(Toy):
    """The tap itself writes into what it is given."""

    def __init__(self):
        super().__init__()
        self.tap = nn.ReLU(inplace=True)

    def outputs(self, inputs):
        x = self.stem(inputs)
        return self.head(self.tap(x)), self.head2(x)


class WrittenBehind(Toy):
    """What was given to the tap is written into behind it."""

    def __init__(self):
        super().__init__()
        # Keeps its result, not what it is given.
        self.tap = nn.Sequential(nn.ReLU(), self.tap)

    def outputs(self, inputs):
        x = self.stem(inputs) * 1
        x += self.tap(x)
        return (self.head(x),)


class ReturnsItsInput(Toy):
    def outputs(self, inputs):
        x = self.stem(inputs)
        a = self.same(x) + 1
        x.relu_()
        return self.head(self.tap(a)), self.head2(x)


class HalfAlsoReturned(Toy):
    """The tap returns a view of its own feature besides, with a mask that is changed."""

    class Both(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            return y, y > 0

    def __init__(self):
        super().__init__()
        self.tap = self.Both(4, 4).double()

    def outputs(self, inputs):
        y, mask = self.tap(self.stem(inputs))
        mask.logical_not_()
        return (self.head(y * mask),)


@dataclass
class Output:
    value: torch.Tensor
    name: str = 'x'


class Table(dict):
    pass


class InContainers(Toy):
    class Wrapped(nn.Linear):
        kind = None

        def forward(self, x):
            y = super().forward(x)
            if self.kind == 'dataclass':
                return Output(y)
            if self.kind == 'dict':
                return Table(value=y)
            return InstanceData(value=y)

    def __init__(self, kind):
        super().__init__()
        self.stem = self.Wrapped(4, 4).double()
        self.stem.kind = kind

    def outputs(self, inputs):
        found = self.stem(inputs)
        value = found['value'] if isinstance(found, dict) else found.value
        return self.head(self.tap(value)), self.head2(value)


class Spectrum(Toy):
    class Fourier(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x)

    def __init__(self):
        super().__init__()
        self.fourier = self.Fourier()

    def outputs(self, inputs):
        x = self.fourier(self.stem(inputs))
        return self.head(self.tap(x.real)), self.head2(x.abs())


CASES = {
    'written before': (WrittenBefore, 'output'),
    'pre-activation': (PreActivation, 'output'),
    'written between': (WrittenBetween, 'output'),
    'written at the tap': (WrittenAtTap, 'output'),
    'written behind': (WrittenBehind, 'input'),
    'returns its input': (ReturnsItsInput, 'output'),
    'mask beside it': (HalfAlsoReturned, 'output'),
    'dataclass': (lambda: InContainers('dataclass'), 'output'),
    'dict of a kind': (lambda: InContainers('dict'), 'output'),
    'data element': (lambda: InContainers('element'), 'output'),
    'complex': (Spectrum, 'output'),
}


@pytest.mark.parametrize('learn', ['tail', 'skips', 'network'])
@pytest.mark.parametrize('case', CASES)
def test_gradients_are_right(case, learn):
    build, side = CASES[case]
    with double_precision():
        stock = reference.clean_pass(build(), (X,), [('tap', side)])
        for _ in range(2):
            model = build()
            view = Unmoved(at='tap', side=side, weight=0.5, learn=learn)
            with mmfeataug.attach(model, [view], clean_weight=0.5) as handle:
                for _ in range(2):
                    losses, gradients = step(model, (X,))
                    torch.testing.assert_close(losses['unmoved.loss_0'], 0.5 * stock.total)
            if learn == 'network':
                assert difference(gradients, stock.gradients) < 1e-9
            assert handle.taps[0].verified


@pytest.mark.parametrize('learn', ['tail', 'skips', 'network'])
@pytest.mark.parametrize('case', ['dataclass', 'dict of a kind', 'data element', 'complex'])
def test_containers_are_cut_open(case, learn):
    build, _ = CASES[case]
    with double_precision():
        held_against_reference(build(), [Unmoved(at='tap', weight=0.5, learn=learn)], (X,))


@pytest.mark.parametrize('learn', ['skips', 'network'])
def test_copies_are_written_into_again(learn):
    with double_precision():
        model, method = WrittenBetween(), Unmoved(at='tap', weight=0.5, learn=learn)
        with mmfeataug.attach(model, [method], clean_weight=1.0) as handle:
            step(model, (X,))
            assert handle.taps[0].copy_records
        state = handle.state_dict()
        before, seen = copy.deepcopy(model), seen_views(method, (0.5,))
        # As after a resume: it does not have to find out anew.
        with mmfeataug.attach(model, [method], clean_weight=1.0) as handle:
            handle.load_state_dict(state)
            _, gradients = step(model, (X,))
        assert handle.taps[0].memoize
        _, expected = reference.expected(before, (X,), 1.0, seen)
    assert difference(gradients, expected) < 1e-9


class Averaging(Toy):
    """A frozen layer before the tap is averaged in each call, as a momentum encoder is."""

    def __init__(self):
        super().__init__()
        self.mid.requires_grad_(False)

    def outputs(self, inputs):
        self.mid.weight.data.mul_(0.5)
        return (self.head(self.tap(self.mid(self.stem(inputs)))),)


def test_state_that_the_clean_graph_needs():
    with double_precision():
        stock = reference.clean_pass(Averaging(), (X,)).gradients
        view = Unmoved(at='tap', weight=0.5, learn='network')
        with mmfeataug.attach(model := Averaging(), [view], clean_weight=0.5, strict=True):
            _, gradients = step(model, (X,))
    assert difference(gradients, stock) < 1e-9


class Keeping(nn.Module):
    """State of losses in a head, not in the model: numbers, and a helper made in the first call."""

    def __init__(self):
        super().__init__()
        self.fc, self.count, self.average, self.helper = nn.Linear(4, 2), 0, 1.0, None

    def forward(self, x):
        if self.helper is None:
            self.helper = type('Helper', (), {})()
        loss = self.fc(x).square().mean()
        self.count += 1
        self.average = 0.9 * self.average + 0.1 * float(loss.detach())
        self.helper.last = self.count
        return loss / self.average


class WithHead(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.bbox_head = nn.Linear(4, 4), Keeping()

    def loss(self, inputs, data_samples=None):
        return {'loss': self.bbox_head(self.stem(inputs))}

    parse_losses = Toy.parse_losses


@pytest.mark.parametrize('learn', ['tail', 'network'])
def test_state_of_a_head(learn):
    stock = WithHead()
    ours = copy.deepcopy(stock)
    with mmfeataug.attach(ours, [dict(type='AFAN', at='stem', gamma=0.1, learn=learn)]):
        for _ in range(4):
            stock.loss(X.float())
            ours.loss(X.float())
            assert ours.bbox_head.count == stock.bbox_head.count
            assert ours.bbox_head.average == pytest.approx(stock.bbox_head.average)
            assert ours.bbox_head.helper.last == stock.bbox_head.helper.last


def test_nothing_waits_for_the_collector():
    """A step leaves no feature alive, and no cycle that only the collector finds."""
    alive = weakref.WeakSet()

    class Noting(Unmoved):
        def views(self, features, gradients, tail):
            alive.update(features)
            yield from super().views(features, gradients, tail)

    model = WrittenBefore()
    view = Noting(at='tap', weight=0.5, learn='network')
    gc.disable()
    try:
        with mmfeataug.attach(model, [view], clean_weight=0.5):
            for _ in range(3):
                step(model, (X,))
            assert len(alive) == 0
    finally:
        gc.enable()
