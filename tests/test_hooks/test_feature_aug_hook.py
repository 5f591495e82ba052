# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The hook in real Runner loops, on a small segmentor."""

import copy
import itertools
import pickle
from functools import cache

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmfeataug.engine import BatchAugmentation
from mmfeataug.hooks import FeatureAugHook, Schedule
from mmfeataug.registry import AUGMENTATIONS
from tests.contract.test_1_stock_outside import assert_same
from tests.models import build_segmentor, deeplab_cfg, raw_test_batch

EncoderDecoder = pytest.importorskip('mmseg.models').EncoderDecoder
RUNS = itertools.count()
AUGMENTATION = dict(
    type='mmfeataug.AFAN',
    at='backbone.layer3',
    unit='absolute',
    gamma=0.02,
    random_start=True,
    weight=0.5,
)


@cache
def data(count):
    inputs, samples = raw_test_batch(build_segmentor(), size=32, images=count)
    return [dict(inputs=x, data_samples=s) for x, s in zip(inputs, samples, strict=True)]


class Samples(Dataset):
    def __init__(self, count=8):
        self.data = data(count)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return copy.deepcopy(self.data[i])


@HOOKS.register_module()
class Spy(Hook):
    """Remembers what was active, and the losses."""

    priority = 'LOWEST'

    def __init__(self, stop_after=None):
        self.active, self.logs, self.ramp, self.stop_after = [], [], [], stop_after

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        handle = getattr(runner.model, 'module', runner.model).loss
        self.active.append(handle.was_active)
        self.ramp.append(handle.plan.ramp)
        self.logs.append({k: float(v) for k, v in outputs.items()})
        if self.stop_after is not None and runner.iter + 1 == self.stop_after:
            runner.save_checkpoint(
                runner.work_dir, 'killed.pth', meta=dict(epoch=runner.epoch, iter=runner.iter + 1)
            )
            raise KeyboardInterrupt


def make_runner(work_dir, hook=None, epochs=2, by_iter=False, spy=None, model=None, **kwargs):
    train_cfg = dict(by_epoch=True, max_epochs=epochs)
    if by_iter:
        train_cfg = dict(type='IterBasedTrainLoop', max_iters=by_iter)
    optim_wrapper = dict(
        type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
    )
    optim_wrapper.update(kwargs.pop('optim_wrapper', {}))
    cfg = deeplab_cfg()
    cfg['data_preprocessor']['size'] = (32, 32)
    return Runner(
        model=model or build_segmentor(ConfigDict(cfg)),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Samples(),
            batch_size=2,
            sampler=dict(type='DefaultSampler' if not by_iter else 'InfiniteSampler', shuffle=True),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=train_cfg,
        optim_wrapper=optim_wrapper,
        custom_hooks=[h for h in (hook, spy) if h is not None] + kwargs.pop('hooks', []),
        default_scope='mmseg',
        randomness=kwargs.pop('randomness', dict(seed=5)),
        log_level='ERROR',
        # Runs of one process with one name would share mmengine's visualizer.
        experiment_name=f'{work_dir.name}-{next(RUNS)}',
        **kwargs,
    )


class Growing:
    """Stands for a ``GradScaler``: a scale, and a count of good steps."""

    value, good = 1.0, 0

    def is_enabled(self):
        return True

    def state_dict(self):
        return dict(vars(self))

    def load_state_dict(self, state):
        vars(self).update(state)


def train(work_dir, hook=None, **kwargs):
    spy = Spy()
    runner = make_runner(work_dir, hook, spy=spy if hook else None, **kwargs)
    runner.train()
    return runner, spy


class TestSchedule:
    @pytest.mark.parametrize(
        ('settings', 'expected'),
        [
            (dict(begin=1, by_epoch=True, interval=2), [0, 0, 0, 0, 1, 0, 1, 0]),
            (dict(warmup=4), [0, 1, 1, 1, 1, 1, 1, 1]),
        ],
    )
    def test_active_iterations(self, tmp_path, settings, expected):
        runner, spy = train(tmp_path, FeatureAugHook([AUGMENTATION], clean_weight=0.5, **settings))
        assert spy.active == [bool(e) for e in expected]
        logged = runner.message_hub.get_scalar('train/feature_aug.active').current()
        assert logged == pytest.approx(sum(expected) / len(expected))
        assert [('afan.loss_0' in log) for log in spy.logs] == spy.active
        if 'warmup' in settings:
            assert spy.ramp == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]

    def test_prob_draws_from_seed_and_iteration(self, tmp_path):
        _, spy = train(tmp_path / 'a', FeatureAugHook([AUGMENTATION], prob=0.5))
        assert 0 < sum(spy.active) < len(spy.active)
        schedule = Schedule(prob=0.5)
        assert spy.active == [schedule.draws(i, 4, seed=5) for i in range(8)]

    @pytest.mark.parametrize('settings', [dict(prob=0.0), dict(interval=100)])
    def test_prob_and_interval_are_of_views_alone(self, settings, tmp_path):
        """What changes the clean pass itself acts in every iteration."""
        layer = dict(type='NormalizationPerturbation', at='backbone.layer1', prob=1.0)
        stock, _ = train(tmp_path / 'a')
        alone, _ = train(tmp_path / 'b', FeatureAugHook([layer]))
        # Views in no iteration, or in the first, where their weights still are 0.
        hook = FeatureAugHook([layer, AUGMENTATION], warmup=1, **settings)
        both, spy = train(tmp_path / 'c', hook)
        assert_same(both.model.state_dict(), alone.model.state_dict())
        with pytest.raises(AssertionError):
            assert_same(both.model.state_dict(), stock.model.state_dict())
        assert all(spy.active)
        assert not any('afan.loss_0' in log for log in spy.logs)

    def test_places_are_said_when_views_have_shown_them(self, tmp_path):
        """A layer beside them may act before."""
        said = []

        class Listen(Hook):
            def before_train(self, runner):
                runner.logger.info = lambda text, *args: said.append((runner.iter, text % args))

        layer = dict(type='NormalizationPerturbation', at='backbone.layer1', prob=1.0)
        hook = FeatureAugHook([layer, AUGMENTATION], prob=0.3)
        train(tmp_path, hook, hooks=[Listen()])
        drawn = [i for i in range(8) if Schedule(prob=0.3).draws(i, 4, seed=5)]
        assert drawn[0] > 0
        places, objective = (entry for entry in said if 'FeatureAugHook' in entry[1])
        assert places[0] == objective[0] == drawn[0]
        assert 'afan at backbone.layer3 [' in places[1]
        assert '[]' not in places[1]

    @pytest.mark.parametrize(
        'settings',
        [
            dict(interval=2),
            dict(prob=0.5),
            dict(budget=1.2),
            dict(clean_weight=0.25),
            dict(warmup=4),
        ],
    )
    def test_what_is_of_views_needs_views(self, tmp_path, settings):
        layer = dict(type='NormalizationPerturbation', at='backbone.layer1')
        with pytest.raises(ValueError, match='no augmentation here makes any'):
            train(tmp_path, FeatureAugHook([layer], **settings))

    @pytest.mark.parametrize(
        ('interval', 'expected'), [(1, [0, 0, 1, 1, 2, 2, 3, 3]), (2, [0, 1, 2, 3])]
    )
    def test_turns_are_of_optimizer_steps(self, interval, expected, tmp_path):
        """AdAutoMix alternates by them."""
        turns = []

        class Turns(BatchAugmentation):
            active = True

            def losses(self, inputs, clean, network, generator):
                turns.append(network.update_count)
                yield clean[0].sum() * 0

        AUGMENTATIONS.register_module(module=Turns, force=True)
        hook = FeatureAugHook([dict(type='Turns', at='backbone')], interval=interval)
        train(tmp_path, hook, optim_wrapper=dict(accumulative_counts=2))
        assert turns == expected

    @pytest.mark.parametrize('factor', [2.0, 0.5])
    @pytest.mark.parametrize(
        ('schedule', 'counts', 'changes'),
        [(dict(begin=3), 1, 3), (dict(begin=2), 2, 2), (dict(begin=1, interval=2), 2, 8)],
    )
    def test_steps_with_views_do_not_change_the_loss_scale(
        self, schedule, counts, changes, factor, tmp_path
    ):
        """They overflow under a scale of their own; the next stock step would under a larger one,
        and lose its gradients under a smaller one. A stock iteration of the same optimizer step
        may.
        """
        scaler = Growing()

        class Grow(Hook):
            def before_train(self, runner):
                runner.optim_wrapper.loss_scaler = scaler

            def before_train_iter(self, runner, batch_idx, data_batch=None):
                # Stands for the step, behind what the hook does before it.
                scaler.value *= factor
                scaler.good += 1

        accumulation = dict(accumulative_counts=counts)
        hook = FeatureAugHook([AUGMENTATION], **schedule)
        train(tmp_path, hook, hooks=[Grow()], optim_wrapper=accumulation)
        assert scaler.value == factor**changes
        assert scaler.good == changes


class TestTraining:
    def test_what_a_run_leaves(self, tmp_path):
        """Norms in the log, the stock loss, and a checkpoint with stock keys."""
        runner, spy = train(tmp_path, FeatureAugHook([AUGMENTATION], clean_weight=0.5))
        for log in spy.logs:
            assert log['afan.linf'] == pytest.approx(0.04, abs=0.021)
            assert log['afan.dropped'] == 0
        assert 'loss' not in vars(runner.model)
        saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['state_dict']
        stock = build_segmentor()
        stock.load_state_dict(saved, strict=True)
        assert list(saved) == list(stock.state_dict())

    def test_off_trains_like_stock(self, tmp_path):
        stock, _ = train(tmp_path / 'stock')
        ours, _ = train(tmp_path / 'ours', FeatureAugHook([AUGMENTATION], prob=0.0))
        assert_same(ours.model.state_dict(), stock.model.state_dict())

    def test_killed_and_resumed_is_uninterrupted(self, tmp_path):
        """A schedule, random draws of the method and dropout included. Iteration-based, as
        segmentation is trained."""
        hook = dict(
            type='mmfeataug.FeatureAugHook',
            augmentations=[AUGMENTATION],
            begin=1,
            interval=2,
            warmup=4,
        )
        whole = make_runner(tmp_path / 'whole', hook, by_iter=6, hooks=[Draws()])
        whole.train()
        first = make_runner(tmp_path / 'cut', hook, by_iter=6, spy=Spy(3), hooks=[Draws()])
        with pytest.raises(KeyboardInterrupt):
            first.train()
        second = make_runner(
            tmp_path / 'cut',
            hook,
            by_iter=6,
            hooks=[Draws()],
            load_from=str(tmp_path / 'cut' / 'killed.pth'),
            resume=True,
        )
        second.train()
        assert_same(second.model.state_dict(), whole.model.state_dict())

    def test_state_is_resumed(self, tmp_path):
        train(tmp_path, FeatureAugHook([AUGMENTATION]), epochs=1)
        checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
        state = checkpoint['message_hub']['runtime_info']['feature_aug.state']
        assert state['step_count'] > 1
        changed = dict(loss_scale=256.0, good_steps=7, full_precision=[AUGMENTATION['at']])
        state.update(changed)
        torch.save(checkpoint, tmp_path / 'other.pth')

        class Look(Spy):
            def after_train_iter(self, runner, *args, **kwargs):
                found = runner.model.loss.state_dict()
                assert {key: found[key] for key in changed} == changed
                assert found['step_count'] > state['step_count']

        hook = FeatureAugHook([AUGMENTATION])
        path = str(tmp_path / 'other.pth')
        make_runner(tmp_path, hook, spy=Look(), load_from=path, resume=True).train()


class Draws(Hook):
    """Makes the random streams a function of the iteration, so that dropout repeats after a
    resume."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        torch.manual_seed(runner.iter)


def test_activation_checkpointing(tmp_path):
    """mmengine's setting trains the same weights, also with a tap behind and before."""
    found = []
    for modules in (None, ['backbone.layer1', 'backbone.layer4']):
        hook = FeatureAugHook([AUGMENTATION])
        cfg = dict(activation_checkpointing=modules)
        runner, _ = train(tmp_path / str(modules), hook, by_iter=2, cfg=cfg)
        found.append(runner.model.state_dict())
    assert_same(*found)


class TestRefusals:
    def test_a_schedule_for_layers(self, tmp_path):
        cfg = deeplab_cfg()
        cfg['data_preprocessor']['size'] = (32, 32)
        layer = dict(type='mmfeataug.MixStyle', at='layer1')
        cfg['backbone'] = dict(
            type='mmfeataug.AugmentedBackbone', backbone=cfg['backbone'], augmentations=[layer]
        )
        model = build_segmentor(ConfigDict(cfg))
        with pytest.raises(ValueError, match='layers, which always do'):
            make_runner(tmp_path, FeatureAugHook(interval=2), model=model).train()

    def test_nothing_to_drive(self, tmp_path):
        with pytest.raises(ValueError, match='nothing to drive'):
            make_runner(tmp_path, FeatureAugHook()).train()

    def test_sharded_wrapper(self, tmp_path):
        class MMFullyShardedDataParallel(torch.nn.Module):
            """By this name it is known; the real one needs a process group."""

        runner = make_runner(tmp_path, FeatureAugHook([AUGMENTATION]))
        runner.model = MMFullyShardedDataParallel()
        with pytest.raises(ValueError, match='MMFullyShardedDataParallel: sharded models'):
            FeatureAugHook([AUGMENTATION]).before_train(runner)

    def test_apex(self, tmp_path):
        class ApexOptimWrapper(OptimWrapper):
            """By this name it is known; the real one needs apex."""

        runner = make_runner(tmp_path, FeatureAugHook([AUGMENTATION]))
        runner.optim_wrapper = ApexOptimWrapper(torch.optim.SGD(runner.model.parameters(), 0.1))
        with pytest.raises(ValueError, match=r'ApexOptimWrapper.*use AmpOptimWrapper'):
            FeatureAugHook([AUGMENTATION]).before_train(runner)

    def test_two_hooks(self, tmp_path):
        """One would silently replace the other."""
        two = [FeatureAugHook([AUGMENTATION]), FeatureAugHook([dict(AUGMENTATION, weight=0.1)])]
        runner = make_runner(tmp_path, two[0], hooks=two[1:])
        with pytest.raises(ValueError, match='FeatureAugHook is there more than once'):
            runner.train()
        assert 'loss' not in vars(runner.model)

    def test_what_an_interrupted_run_left_is_taken_off(self, tmp_path):
        model = build_segmentor()
        with pytest.raises(KeyboardInterrupt):
            make_runner(
                tmp_path / 'a', FeatureAugHook([AUGMENTATION]), spy=Spy(stop_after=1), model=model
            ).train()
        assert 'loss' in vars(model)
        hook = FeatureAugHook([dict(AUGMENTATION, at='backbone.layer2')])
        make_runner(tmp_path / 'b', hook, spy=(spy := Spy()), model=model, by_iter=2).train()
        assert spy.active == [True] * 2

    @pytest.mark.parametrize(
        ('settings', 'loop', 'message'),
        [
            (
                dict(begin=8, prob=0.0),
                {},
                'begin=8 .* training ends at 8 iterations .*, before any view',
            ),
            (dict(begin=2, by_epoch=True), {}, r'ends at 8 iterations \(4 an epoch'),
            (dict(begin=3, by_epoch=True), dict(by_iter=12), r'ends at 12 iterations \(4 an'),
        ],
    )
    def test_a_schedule_behind_the_end(self, tmp_path, settings, loop, message):
        with pytest.raises(ValueError, match=message):
            make_runner(tmp_path, FeatureAugHook([AUGMENTATION], **settings), **loop).train()

    def test_epochs_of_a_loop_by_iterations(self, tmp_path):
        hook = FeatureAugHook([AUGMENTATION], begin=1, end=2, by_epoch=True)
        _, spy = train(tmp_path, hook, by_iter=12)
        assert len(spy.active) == 12

    @pytest.mark.parametrize('augmentations', [AUGMENTATION, 'AFAN'])
    def test_brackets_forgotten(self, augmentations):
        with pytest.raises(TypeError, match='give a list, put brackets around it'):
            FeatureAugHook(augmentations)

    def test_an_unknown_method_hides_nothing_else(self, tmp_path):
        hook = FeatureAugHook([dict(AUGMENTATION, type='mmfeataug.AFAM')], begin=100)
        with pytest.raises(ValueError, match='2 things cannot be') as caught:
            make_runner(tmp_path, hook).train()
        assert 'AFAM' in str(caught.value)
        assert 'begin=100' in str(caught.value)
        # Processes of others send it on.
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

    def test_everything_at_once(self, tmp_path):
        entries = [dict(AUGMENTATION, at='backbone.layr3'), dict(AUGMENTATION, gama=1)]
        runner = make_runner(tmp_path, FeatureAugHook(entries, begin=100, clean_weight=0))
        runner.cfg.compile = True
        with pytest.raises(ValueError, match='5 things cannot be') as caught:
            runner.train()
        for part in ('layr3', 'gama', 'begin=100', 'clean_weight', 'compile'):
            assert part in str(caught.value)


class TestWrappers:
    def test_hook_drives_what_wrappers_declare(self, tmp_path):
        cfg = deeplab_cfg()
        cfg['data_preprocessor']['size'] = (32, 32)
        direct, _ = train(
            tmp_path / 'direct', FeatureAugHook([AUGMENTATION]), model=build_segmentor(cfg)
        )
        cfg['backbone'] = dict(
            type='mmfeataug.AugmentedBackbone',
            backbone=cfg['backbone'],
            augmentations=[AUGMENTATION | dict(at='layer3')],
        )
        declared, spy = train(tmp_path / 'declared', FeatureAugHook(), model=build_segmentor(cfg))
        assert all(spy.active)
        assert_same(declared.model.state_dict(), direct.model.state_dict())

    @pytest.mark.parametrize(
        ('entry', 'message'),
        [
            ('AFAN', 'is not a config like'),
            (dict(at='layer2'), 'is not a config like'),
            (dict(type='mmfeataug.AFAN'), r"mmfeataug.AFAN.*'at'"),
            (dict(type='mmfeataug.AFAN', at='layer2', gama=1), r"layer2.*'gama'"),
        ],
    )
    def test_bad_declaration(self, entry, message):
        from mmfeataug.models import declare

        with pytest.raises(TypeError, match=message):
            declare(torch.nn.Identity(), [entry])


@pytest.mark.parametrize('resumed', [False, True])
def test_second_norms_are_on_both_sides_of_a_resume(tmp_path, resumed):
    """Of the config that is resumed, or of the checkpoint."""

    def separate(bn):
        cfg = deeplab_cfg()
        cfg['data_preprocessor']['size'] = (32, 32)
        entry = dict(AUGMENTATION, bn='separate' if bn else 'shared')
        return build_segmentor(
            dict(cfg, type='mmfeataug.AugmentedModel', of=cfg['type'], augmentations=[entry])
        )

    runner, _ = train(tmp_path / 'a', FeatureAugHook(), model=separate(resumed), epochs=1)
    runner.save_checkpoint(str(tmp_path), 'first.pth')
    again = dict(model=separate(not resumed), load_from=str(tmp_path / 'first.pth'))
    who = 'checkpoint' if resumed else 'config'
    with pytest.raises(ValueError, match=rf'resume: the {who} has .*aux_bn.*load_from=\.\.\. with'):
        make_runner(tmp_path / 'b', FeatureAugHook(), resume=True, **again).train()
    # Weights alone are taken over.
    train(tmp_path / 'c', FeatureAugHook(), epochs=1, **again)


class Branches(torch.nn.Module):
    """As mmdet's ``MultiBranchDataPreprocessor`` holds another data preprocessor."""

    def __init__(self, inner):
        super().__init__()
        self.data_preprocessor = inner

    def forward(self, data, training=False):
        return self.data_preprocessor(data, training)


@pytest.mark.parametrize('kind', ['FMA', 'AFAN'])
def test_images_of_several_branches(tmp_path, kind):
    model = build_segmentor()
    model.data_preprocessor = Branches(model.data_preprocessor)
    at = dict(FMA='backbone.layer1', AFAN='inputs')[kind]
    hook = FeatureAugHook([dict(type=f'mmfeataug.{kind}', at=at)])
    runner = make_runner(tmp_path, hook, model=model)
    with pytest.raises(TypeError, match=r'dict of branches .*student\.backbone\.layer2'):
        runner.train()
    assert 'loss' not in vars(model)


class PastTheLoss(EncoderDecoder):
    """Calls its own loss in some iterations only."""

    own = ()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode != 'loss':
            return super().forward(inputs, data_samples, mode)
        self.number = getattr(self, 'number', -1) + 1
        if self.number in self.own:
            return self.loss(inputs, data_samples)
        return type(self).__mro__[1].loss(self, inputs, data_samples)


@pytest.mark.parametrize('own', [(), (0,)])
def test_a_loss_that_is_not_on_the_way(tmp_path, own, monkeypatch):
    model = build_segmentor()
    model.__class__ = type('PastTheLoss', (PastTheLoss,), {'own': own})
    hook = FeatureAugHook([AUGMENTATION], clean_weight=0.5)
    if not own:
        with pytest.raises(RuntimeError, match=r'did not call PastTheLoss\.loss.*call self\.loss'):
            train(tmp_path, hook, model=model)
        assert 'loss' not in vars(model)
        return
    runner, said = make_runner(tmp_path, hook, model=model), []
    monkeypatch.setattr(runner.logger, 'warning', lambda text, *args: said.append(text % args))
    runner.train()
    assert len([m for m in said if 'did not call PastTheLoss.loss' in m]) == 1
