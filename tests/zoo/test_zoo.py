# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Every model of the zoo: replays are exact, steps stay finite, the model stays stock."""

import copy
import importlib
import warnings
from contextlib import nullcontext
from functools import cached_property

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import init_default_scope

import mmfeataug
from mmfeataug.datasets.random_batch import random_batch
from mmfeataug.engine import FeatureAugmentation, View, tail_shares
from tests.contract.test_1_stock_outside import assert_same
from tests.oracle import Unmoved, difference, double_precision
from tests.reference import Clean, SeenView, clean_pass, detached, perturbed, seed, view_pass
from tests.zoo import page
from tests.zoo.shrink import load_model_config, shrink
from tests.zoo.table import PARAMS, PLACES, Entry


class Wave(FeatureAugmentation):
    """One view that any recorded result behind the tap would give away."""

    name, active, weight = 'wave', True, 1.0

    def views(self, features, gradients, tail):
        self.features, self.gradients = features, gradients
        yield View([perturbed(f) for f in features], 1.0)


class Model:
    """A small stock model in training mode, and its batch; tests work on copies."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        importlib.import_module(f'{entry.package}.utils').register_all_modules(False)
        init_default_scope(entry.package)
        MMLogger.get_current_instance().setLevel('ERROR')
        # What a Runner tells: some heads change their assigner with the epoch.
        MessageHub.get_current_instance().update_info('epoch', 0)
        cfg = shrink(load_model_config(entry.package, entry.config), entry.divisor, entry.overrides)
        torch.manual_seed(0)
        models = importlib.import_module(f'{entry.package}.registry').MODELS
        self.stock = models.build(cfg)
        self.stock.init_weights()
        self.stock.train()
        self.batch = random_batch(self.stock, (entry.size, entry.size))

        self.exact, self.exact_batch, self.limit = self._in_double_precision()

    def _in_double_precision(self):
        """Model and batch to compare gradients on, and the rounding to allow; in single precision
        where an operator or a loss knows no other.
        """
        inputs, *rest = self.batch
        model = copy.deepcopy(self.stock).double()
        batch = (inputs.double(), *rest)
        try:
            with double_precision():
                clean_pass(model, batch)
        except (RuntimeError, NotImplementedError):
            return self.stock, self.batch, 2e-3
        return model, batch, 1e-6

    def precision(self):
        """The context that :attr:`exact` needs."""
        return double_precision() if self.exact is not self.stock else nullcontext()

    @cached_property
    def clean(self) -> Clean:
        places = [(p, 'output') for p in self.entry.taps.values()]
        return clean_pass(self.exact, self.exact_batch, places)

    def predict(self, model: torch.nn.Module) -> list[dict] | tuple:
        """What the model in evaluation mode makes of the batch."""
        model.eval()
        inputs, samples = copy.deepcopy(self.batch)
        seed()
        with torch.no_grad():
            if not self.entry.predicts:
                return model(inputs, samples, mode='tensor')
            return [sample.to_dict() for sample in model.predict(inputs, samples)]

    @cached_property
    def row(self) -> page.Row:
        """What the page says of it."""
        model = copy.deepcopy(self.stock)
        batches = [copy.deepcopy(self.batch) for _ in range(4)]
        shares = tail_shares(
            model,
            lambda: model.parse_losses(model.loss(*batches.pop()))[0],
            self.entry.taps.values(),
            repeats=3,
        )
        return page.Row(
            type(self.stock.backbone).__name__,
            {place: shares[path].share for place, path in self.entry.taps.items()},
        )


@pytest.fixture(scope='module', params=PARAMS)
def zoo(request, zoo_rows):
    entry = request.param
    if entry.needs:
        pytest.importorskip(f'{entry.needs}.models', exc_type=ImportError)
    model = Model(entry)
    zoo_rows[entry.name] = model.row
    return model


@pytest.fixture
def exact(zoo):
    with zoo.precision():
        yield zoo


@pytest.mark.parametrize('place', PLACES)
def test_view_is_a_full_pass(exact, place):
    """Loss terms and gradients of a view are those of a stock pass with the output replaced,
    whoever learns from it."""
    path = exact.entry.taps[place]
    features, slopes = exact.clean.features[path, 'output'], exact.clean.slopes[path, 'output']
    movable = exact.clean.movable[path, 'output']
    view = SeenView(path, [perturbed(f) for f in features], 1.0)
    for learn in LEARN:
        view.learn = learn
        terms, _, gradients = view_pass(exact.exact, exact.exact_batch, view, movable)
        expected = {n: _sum(g, gradients[n]) for n, g in exact.clean.gradients.items()}
        model, wave, passes = copy.deepcopy(exact.exact), Wave(at=path, learn=learn), []
        stock_loss = model.loss

        def recorded(*args, stock_loss=stock_loss, passes=passes):
            losses = stock_loss(*args)
            passes.append(detached(losses))
            return losses

        model.loss = recorded
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            handle = mmfeataug.attach(model, [wave], clean_weight=1.0)
            (tap,) = handle.taps
            # A tap that has to copy what it records settles in the second step.
            for _ in range(2):
                losses, ours = augmented_step(exact, model)
                assert_close(passes[-1], terms)
                clean = {k: detached(losses)[k] for k in exact.clean.losses}
                assert_close(clean, exact.clean.losses)
                assert_close(wave.features, features)
                assert_close(wave.gradients, slopes)
                assert difference(ours, expected, floor=1e-3) < exact.limit, learn
                if tap.verified:
                    break
        assert tap.verified
        if learn == 'tail':
            messages = [str(w.message) for w in caught]
            exact.row.reasons[place] = None if tap.memoize else page.reason(messages)


@pytest.mark.parametrize('place', PLACES)
def test_unmoved_view_is_the_stock_step(exact, place):
    """With the clean loss at a quarter and an unmoved view for the rest, the network gets the
    stock gradient."""
    model = copy.deepcopy(exact.exact)
    path = exact.entry.taps[place]
    view = Unmoved(at=path, weight=0.75, learn='network', bn='frozen')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        mmfeataug.attach(model, [view], clean_weight=0.25)
        losses, ours = augmented_step(exact, model)
    assert not losses['unmoved.dropped']
    assert difference(ours, exact.clean.gradients, floor=1e-3) < exact.limit


LEARN = ('tail', 'skips', 'network')


def augmented_step(zoo, model):
    """Losses and gradients of one step from the stock weights and streams."""
    model.load_state_dict(zoo.exact.state_dict())
    model.zero_grad(set_to_none=True)
    seed()
    losses = model.loss(*copy.deepcopy(zoo.exact_batch))
    model.parse_losses(losses)[0].backward()
    return losses, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def test_two_steps(zoo):
    """Two optimizer steps with every tap at once are finite; keys and predictions stay stock."""
    model = copy.deepcopy(zoo.stock)
    optimizer = torch.optim.SGD(trained(model), lr=1e-3)
    views = [
        dict(type='AFAN', at=path, gamma=0.05, unit='std', weight=0.2)
        for path in zoo.entry.taps.values()
    ]
    seed()
    with warnings.catch_warnings(), mmfeataug.attach(model, views, clean_weight=0.5):
        warnings.simplefilter('ignore')
        for _ in range(2):
            losses = model.loss(*copy.deepcopy(zoo.batch))
            total = model.parse_losses(losses)[0]
            assert total.isfinite()
            assert not any(v.any() for k, v in losses.items() if k.endswith('.dropped'))
            optimizer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(trained(model), 10, error_if_nonfinite=True)
            optimizer.step()
        state = model.state_dict()
        assert all(v.isfinite().all() for v in state.values())
        moved = zip(trained(model), trained(zoo.stock), strict=True)
        assert any(not torch.equal(ours, before) for ours, before in moved)
        # A few models get further keys in their first training step (DDQ shares its branches).
        stock = copy.deepcopy(zoo.stock)
        stock.loss(*copy.deepcopy(zoo.batch))
        assert list(state) == list(stock.state_dict())
        stock.load_state_dict(state, strict=True)
        assert_same(zoo.predict(model), zoo.predict(stock))
    zoo.row.trained = True


def _sum(a, b):
    return b if a is None else a if b is None else a + b


def assert_close(ours, theirs):
    """Tensors nested in dicts and lists, to 1e-5 of the largest element of each."""
    if isinstance(theirs, torch.Tensor):
        assert ours is not None
        assert ours.shape == theirs.shape
        tolerance = 1e-5 * theirs.abs().max().item() if theirs.numel() else 0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_close(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b)
    else:
        assert ours is theirs
