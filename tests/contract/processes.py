# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What each process of test_6_processes.py runs: ``torchrun processes.py SCENARIO ...``."""

import copy
import os
import re
import sys
import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import mmfeataug
from mmfeataug.engine import BatchAugmentation, FeatureAugmentation, Tail, View
from mmfeataug.methods import AFAN, AdvBN, SeA
from tests.contract.cases import DETECTOR_METHODS
from tests.models import build_detector, build_segmentor, deeplab_cfg


class Toy(nn.Module):
    """The tail has a collective in its forward pass, as mmdet's losses have."""

    collective = True

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def loss(self, inputs, data_samples=None):
        out = self.head(self.stem(inputs).relu())
        count = torch.tensor(float(len(inputs)))
        if self.collective:
            distributed.all_reduce(count)
        return {'loss': out.square().sum() / len(inputs)}

    def parse_losses(self, losses):
        return sum(v.mean() for k, v in losses.items() if 'loss' in k), losses

    def forward(self, inputs):
        return self.loss(inputs)


class BadOnOne(FeatureAugmentation):
    """Rank 1 meets a view that is not finite."""

    active, weight = True, 0.5

    def views(self, features, gradients, tail):
        bad = features[0] * (float('nan') if distributed.get_rank() == 1 else 1.1)
        yield View([bad], 0.5)
        yield View([features[0] * 1.2], 0.5)


class Uneven(FeatureAugmentation):
    """As many views as the rank says, so none on the first."""

    active, weight = True, 0.5
    views_of: int | None = None

    def views(self, features, gradients, tail):
        count = distributed.get_rank() if self.views_of is None else self.views_of
        for i in range(count):
            yield View([features[0] * (1.1 + 0.1 * i)], 0.5)


class SecondOnly(BadOnOne):
    def views(self, features, gradients, tail):
        yield View([features[0] * 1.2], 0.5)


class BadTermOnOne(BatchAugmentation):
    """Rank 1 meets a term that is not finite."""

    active = True

    def losses(self, inputs, clean, network, generator):
        (features,) = network(inputs * 1.1)
        yield features.square().mean() * (float('nan') if distributed.get_rank() == 1 else 1)
        (features,) = network(inputs * 1.2)
        yield features.abs().mean()


class SecondTermOnly(BadTermOnOne):
    def losses(self, inputs, clean, network, generator):
        (features,) = network(inputs * 1.2)
        yield features.abs().mean()


def compare(model, augmentation, alone):
    """DDP's gradients are the mean of what each rank's batch gives on its own."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    batches = [torch.randn(3, 4, generator=torch.Generator().manual_seed(r)) for r in range(world)]
    single = copy.deepcopy(model)
    single.collective = False
    wrapped = DistributedDataParallel(model)
    with mmfeataug.attach(model, [augmentation], clean_weight=1.0, strict=True):
        losses = wrapped(batches[rank])
        model.parse_losses(losses)[0].backward()
    gradients = []
    # The same on one process, a batch after the other; the guards must not ask the others.
    initialized, distributed.is_initialized = distributed.is_initialized, lambda: False
    for r, batch in enumerate(batches):
        single.zero_grad()
        with mmfeataug.attach(single, [alone(r)], clean_weight=1.0, strict=True):
            single.parse_losses(single.loss(batch))[0].backward()
        gradients.append([p.grad.clone() for p in single.parameters()])
    distributed.is_initialized = initialized
    for parameter, *each in zip(model.parameters(), *gradients, strict=True):
        torch.testing.assert_close(parameter.grad, sum(each) / world)
    return losses


def dropped(learn):
    losses = compare(
        Toy().train(),
        BadOnOne(at='stem', learn=learn),
        lambda _: SecondOnly(at='stem', learn=learn),
    )
    assert float(losses['badonone.dropped']) == 1


def dropped_term(learn):
    term, alone = BadTermOnOne(at='stem'), SecondTermOnly(at='stem')
    losses = compare(Toy().train(), term, lambda _: alone)
    assert float(losses['badtermonone.dropped']) == 1


def uneven(learn):
    def alone(rank):
        augmentation = Uneven(at='stem', learn=learn)
        augmentation.views_of = rank
        return augmentation

    losses = compare(Toy().train(), Uneven(at='stem', learn=learn), alone)
    own = [k for k in losses if k.startswith('uneven.loss') and float(losses[k]) > 0]
    assert len(own) == distributed.get_rank()


def real_methods(learn):
    """Attacks of several steps, with the collectives of their tails."""
    for kind, settings in (
        (AdvBN, dict(steps=2, relu=False)),
        (SeA, dict()),
        (AFAN, dict(steps=2, gamma=0.1, reinject=True, axes='batch')),
    ):
        torch.manual_seed(0)
        methods = [kind(at='stem', learn=learn, weight=0.5, **settings) for _ in range(2)]
        losses = compare(Toy().train(), methods[0], lambda _, m=methods[1]: m)
        assert float(losses[f'{methods[0].name}.loss_0']) > 0


def too_small_on_one(learn):
    """No process asks its tail for a view that another one cannot have."""
    model = Toy().train()
    wrapped = DistributedDataParallel(model)
    settings = dict(steps=2, gamma=0.1, reinject=True, axes='batch', weight=0.5)
    method = AFAN(at='stem', learn=learn, **settings)
    keys = []
    with mmfeataug.attach(model, [method], clean_weight=1.0):
        for rows in (3, 1 if distributed.get_rank() else 3, 3):
            losses = wrapped(torch.randn(rows, 4))
            model.parse_losses(losses)[0].backward()
            keys.append([k for k in ('afan.loss_0', 'afan.skipped') if losses.get(k, 0)])
    assert keys == [['afan.loss_0'], ['afan.skipped'], ['afan.loss_0']]


def unreached_on_one(learn):
    """A batch of one rank that does not reach the tap has no view on any; the next one has."""

    class Branch(Toy):
        def __init__(self):
            super().__init__()
            self.branch = nn.Linear(4, 4)

        def loss(self, inputs, data_samples=None):
            x = self.stem(inputs)
            return super().loss(self.branch(x) if inputs.sum() > 0 else x)

    model = Branch().train()
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    keys, ones = [], torch.ones(3, 4)
    with mmfeataug.attach(
        model, [AFAN(at='branch', gamma=0.1, weight=0.5, learn=learn)], clean_weight=1.0
    ):
        for sign in (1, -1 if distributed.get_rank() else 1, 1):
            losses = wrapped(sign * ones)
            model.parse_losses(losses)[0].backward()
            keys.append([k for k in ('afan.loss_0', 'afan.skipped') if losses.get(k, 0)])
    assert keys == [['afan.loss_0'], ['afan.skipped'], ['afan.loss_0']]


def outside_on_one(learn):
    """A place that one rank calls from inside of another module costs all a full pass."""

    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = [inner]

        def forward(self, x):
            return self.inner[0](x)

    class Outside(Toy):
        def __init__(self):
            super().__init__()
            self.outer = Outer(self.stem)

        def loss(self, inputs, data_samples=None):
            stem = self.outer if distributed.get_rank() == 1 else self.stem
            count = torch.tensor(float(len(inputs)))
            out = self.head(stem(inputs).relu())
            distributed.all_reduce(count)
            return {'loss': out.square().sum() / count}

    model = Outside().train()
    wrapped = DistributedDataParallel(model)
    method = AFAN(at='stem', gamma=0.1, weight=0.5, learn=learn)
    with mmfeataug.attach(model, [method]) as handle:
        with pytest.warns(UserWarning, match='inside (Outer|another module).*one more forward'):
            losses = wrapped(torch.ones(3, 4))
        model.parse_losses(losses)[0].backward()
    assert float(losses['afan.loss_0']) > 0
    assert not handle.taps[0].memoize


def draws(learn):
    """Perturbations differ between ranks; what decides how many there are does not."""

    class Drawing(FeatureAugmentation):
        active, weight = True, 0.5

        def views(self, features, gradients, tail):
            self.drawn = torch.cat(
                [torch.rand(1, generator=g) for g in (tail.generator, tail.shared)]
            )
            yield View([f * 1.1 for f in features], 0.5)

    model, method = Toy().train(), Drawing(at='stem', learn=learn)
    with mmfeataug.attach(model, [method], clean_weight=1.0):
        model.loss(torch.ones(3, 4))
    both = [torch.empty(2) for _ in range(distributed.get_world_size())]
    distributed.all_gather(both, method.drawn)
    assert all(both[0][0] != other[0] for other in both[1:])
    assert all(both[0][1] == other[1] for other in both[1:])


def train(
    model=None,
    augmentations=None,
    hooks=(),
    wrapper=None,
    samples=None,
    diff_seed=False,
    **schedule,
):
    """A real model under mmengine's Runner; weights are the same on all ranks afterwards.

    Args:
        model: A segmentor by default.
        augmentations: A-FAN by default.
        hooks: Beside the one that drives them.
        wrapper: Settings of DistributedDataParallel.
        samples: Of the data set, where the model is no segmentor.
        diff_seed: Each process has a random seed of its own.
        **schedule: Of the hook.
    """
    from tests.test_hooks import test_feature_aug_hook as hook_tests

    if augmentations is None:
        augmentations = [hook_tests.AUGMENTATION]
    hook = dict(type='mmfeataug.FeatureAugHook', augmentations=augmentations, **schedule)
    spy = hook_tests.Spy()
    ddp = dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False, **wrapper or {}
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(hook_tests, 'Samples', samples or hook_tests.Samples),
    ):
        runner = hook_tests.make_runner(
            Path(folder),
            hook,
            by_iter=12,
            spy=spy,
            model=model,
            launcher='pytorch',
            hooks=list(hooks),
            cfg=dict(model_wrapper_cfg=ddp),
            default_hooks=dict(checkpoint=None),
            randomness=dict(seed=5, diff_rank_seed=diff_seed),
        )
        before = flat(runner.model)
        runner.train()
    mine = flat(runner.model)
    assert not torch.equal(mine, before)
    assert mine.isfinite().all()
    others = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(others, mine)
    assert all(torch.equal(mine, other) for other in others)
    views = [any('.loss_0' in key for key in log) for log in spy.logs]
    turns = [torch.tensor(views) for _ in others]
    distributed.all_gather(turns, turns[0].clone())
    assert all(torch.equal(turns[0], turn) for turn in turns)
    assert 0 < sum(views) < 12


UNUSED = dict(find_unused_parameters=True)


def segmentor():
    """Processes draw from seeds of their own."""
    train(prob=0.5, diff_seed=True)


def detector(augmentations=None, **schedule):
    """One tap in the backbone; on two processes and on four."""
    from tests.contract.test_7_settings import Boxes
    from tests.test_hooks import test_feature_aug_hook as hook_tests

    augmentations = augmentations or [{**hook_tests.AUGMENTATION, 'at': 'backbone.layer2'}]
    train(build_detector(), augmentations, samples=Boxes, **schedule or dict(prob=0.3))


def detector_unused():
    detector(interval=3, wrapper=UNUSED)


def detector_methods():
    """SeA with a background class, stability training on held proposals, and an attack on the image
    that tries two of the losses."""
    detector(DETECTOR_METHODS, prob=0.4)


def methods():
    """AdvBN with its own batch norms and steps shared by the processes, SeA, FMA and MixStyle in
    one model, in some iterations; refused where DDP would wait for the second batch norms."""
    from tests.contract.test_4_auxiliary_bn import ADVBN, augmented

    augmentations = [
        dict(type='mmfeataug.SeA', at='decode_head.conv_seg', rows=64),
        dict(type='mmfeataug.FMA', bn='shared'),
        dict(type='mmfeataug.MixStyle', at='backbone.layer1', prob=1.0),
    ]

    def model():
        return build_segmentor(augmented(deeplab_cfg(), {**ADVBN, 'sync': True}))

    train(model(), augmentations, wrapper=UNUSED, prob=0.6)
    with pytest.raises(ValueError, match=r"bn='separate'.*find_unused_parameters=True"):
        train(model(), augmentations)


def mixing():
    """Network and generator stay alike on all ranks, in iterations with and without mixing."""
    from tests.test_hooks.test_teacher import TEACHER, mixed_segmentor

    train(mixed_segmentor(), [], [TEACHER], UNUSED, prob=0.6)
    message = re.compile('parameters of its own.*find_unused_parameters=True', re.DOTALL)
    with pytest.raises(ValueError, match=message):
        train(mixed_segmentor(), [], [TEACHER])


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def synced(learn):
    """AdvBN's steps and means are those of all processes, whatever each one's are."""
    rank = distributed.get_rank()
    feature = torch.randn(3, 4, generator=torch.Generator().manual_seed(rank)) + 5 + rank
    slope = torch.ones_like(feature) * (-1.0 if rank else 3.0 * distributed.get_world_size())
    tail = Tail(lambda features, against=(): (0, [slope]), torch.Generator())
    (view,) = AdvBN(at='x', steps=1, sync=True, relu=False).views([feature], [], tail)
    scale = (view.features[0][0] - view.features[0][1]) / (feature[0] - feature[1])
    mine = torch.stack([scale, view.features[0][0] - scale * feature[0]])
    others = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(others, mine)
    for other in others:
        torch.testing.assert_close(other, mine, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(view.features[0], feature)


GRADIENTS = (
    *(dropped, dropped_term, uneven, synced, real_methods, too_small_on_one),
    *(unreached_on_one, outside_on_one, draws),
)
TRAINING = (segmentor, detector_unused, methods, detector_methods, mixing)


def main():
    """Run the scenarios that are named; none: all that two processes have to agree on."""
    from tests.contract.test_7_settings import PROCESSES, two_processes

    distributed.init_process_group('gloo')
    scenarios = {f'{c.__name__} {learn}': partial(c, learn) for c in GRADIENTS for learn in LEARN}
    scenarios |= {c.__name__: c for c in TRAINING}
    scenarios |= {setting: partial(two_processes, setting) for setting in PROCESSES}
    chosen = sys.argv[1:]
    if chosen:
        scenarios = {n: s for n, s in scenarios.items() if n.split()[0] in chosen}
        scenarios |= {'detector': detector} if 'detector' in chosen else {}
    for name, scenario in scenarios.items():
        torch.manual_seed(0)
        scenario()
        print(f'{name} agrees', flush=True)
    print('all agree', flush=True)
    distributed.barrier()
    distributed.destroy_process_group()
    # At once: threads of the process group that are left race with the end of the interpreter,
    # which ended one run of some hundreds with SIGABRT.
    os._exit(0)


LEARN = ('tail', 'network')


if __name__ == '__main__':
    main()
