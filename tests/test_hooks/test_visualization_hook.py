# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Pictures while training: they arrive, and training does not know of them."""

import copy
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Normalize
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmfeataug import attach
from mmfeataug.engine import Choice
from mmfeataug.hooks import FeatureAugHook, FeatureAugVisualizationHook, visualization_hook
from mmfeataug.methods import AFAN
from mmfeataug.utils.pixels import PixelScale
from tests.contract.test_1_stock_outside import assert_same
from tests.models import (
    build_classifier,
    build_detector,
    build_segmentor,
    deeplab_cfg,
    raw_test_batch,
)

from .test_feature_aug_hook import AUGMENTATION, Draws, Spy, make_runner

AFAN2 = dict(AUGMENTATION, strengths=(0.5, 1.0), weight=0.25)
PICTURES = dict(type='mmfeataug.FeatureAugVisualizationHook')
EVERY_KIND = [
    AFAN2,
    dict(type='mmfeataug.MixStyle', at='backbone.layer1', prob=1.0, alpha=1.0),
    dict(type='mmfeataug.FMA', at=['backbone.layer3', 'backbone.layer4']),
    dict(type='mmfeataug.SeA', at='decode_head.conv_seg', rows=64, weight=0.5),
    dict(type='mmfeataug.AdvStyle', weight=0.5),
]


class NarrowWrapper(OptimWrapper):
    """mmengine's AmpOptimWrapper wants an accelerator."""

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


class Watched(Hook):
    """Which iterations had somebody looking on, during the step."""

    priority = 'LOWEST'

    def __init__(self):
        self.iterations = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = getattr(runner.model, 'module', runner.model)
        handle = vars(model).get('loss')
        augmentations = handle.augmentations.values() if handle else ()
        looking = any(a.observer is not None for a in augmentations)
        hooks = len(model.data_preprocessor._forward_hooks)
        assert hooks == looking
        if looking:
            self.iterations.append(runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        handle = vars(getattr(runner.model, 'module', runner.model)).get('loss')
        assert all(a.observer is None for a in handle.augmentations.values())


@pytest.fixture
def quick(monkeypatch):
    """Pictures are the first channels of the view, which takes no time."""

    def pixels(change):
        return (255 * change.view[0, :3].sigmoid()).byte().movedim(0, -1).numpy()

    monkeypatch.setattr(visualization_hook, 'draw', lambda augmentation, change, *_: change)
    monkeypatch.setattr(visualization_hook, 'to_array', pixels)


def local_images(work_dir):
    """What the default backend of a Runner wrote, by name without the step, with the steps."""
    found = {}
    for path in sorted(Path(work_dir).glob('*/vis_data/vis_image/*.png')):
        name, _, step = path.stem.rpartition('_')
        found.setdefault(name, {})[int(step)] = cv2.imread(str(path))
    return found


def steps(work_dir):
    return {name: sorted(images) for name, images in local_images(work_dir).items()}


def logged(work_dir, hooks, **kwargs):
    spy = Spy()
    runner = make_runner(work_dir, hooks[0], spy=spy, hooks=hooks[1:], **kwargs)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='.*run in float32')
        runner.train()
    return runner, spy.logs


def assert_trains_alike(tmp_path, augmentations, **kwargs):
    """Losses and weights, to the bit; returns what was drawn."""
    runs = []
    for name, pictures in (('without', []), ('with', [dict(PICTURES, interval=3)])):
        hook = FeatureAugHook(copy.deepcopy(augmentations), clean_weight=0.5)
        runs.append(logged(tmp_path / name, [hook, *pictures], epochs=1, **kwargs))
    (plain, logs), (watched, watched_logs) = runs
    assert watched_logs == logs
    assert_same(watched.model.state_dict(), plain.model.state_dict())
    assert not local_images(tmp_path / 'without')
    return local_images(tmp_path / 'with')


class TestTrainingIsTheSame:
    def test_segmentor_every_kind(self, tmp_path):
        found = assert_trains_alike(tmp_path, EVERY_KIND)
        names = {name.partition('.')[0] for name in found}
        assert names == {'afan', 'mixstyle', 'fma', 'sea', 'advstyle'}
        assert {n for n in found if n.startswith('afan')} == {'afan.view_0', 'afan.view_1'}
        for images in found.values():
            assert list(images) == [1, 3]
            for image in images.values():
                assert min(image.shape[:2]) > 200
                assert image.std() > 20

    def test_amp(self, tmp_path, quick):
        found = assert_trains_alike(
            tmp_path, EVERY_KIND[:3], optim_wrapper=dict(type=NarrowWrapper)
        )
        assert len(found) == 4

    @pytest.mark.parametrize('learn', ['tail', 'network'])
    def test_accumulation(self, tmp_path, learn, quick):
        wrapper = dict(accumulative_counts=2)
        entry = dict(AFAN2, learn=learn)
        hook = dict(type='mmfeataug.FeatureAugHook', augmentations=[entry])
        runs = [
            logged(tmp_path / name, [hook, *more], epochs=1, optim_wrapper=wrapper)
            for name, more in (('without', []), ('with', [dict(PICTURES, interval=1)]))
        ]
        assert runs[0][1] == runs[1][1]
        assert_same(runs[0][0].model.state_dict(), runs[1][0].model.state_dict())
        assert steps(tmp_path / 'with')['afan.view_1'] == [1, 2, 3, 4]

    @pytest.mark.parametrize(
        ('build', 'images', 'augmentations', 'names'),
        [
            (
                build_detector,
                1,
                [
                    AFAN2,
                    dict(type='mmfeataug.AFAN', at='neck', unit='std', gamma=0.1),
                    dict(type='mmfeataug.AFAN', at='roi_head.bbox_head.shared_fcs.1'),
                    dict(type='mmfeataug.AFAN', at='roi_head.bbox_roi_extractor'),
                    dict(type='mmfeataug.SeA', at='roi_head.bbox_head.fc_cls'),
                ],
                {
                    *(f'afan.view_{v}' for v in (0, 1)),
                    *(f'afan2.view_0.level_{k}' for k in range(3)),
                    'afan3.view_0',
                    'afan4.view_0',
                    'sea.view_0',
                },
            ),
            pytest.param(
                build_classifier,
                2,
                [
                    dict(type='mmfeataug.MoEx', at='backbone.layer1', prob=1.0),
                    dict(type='mmfeataug.StabilityTraining', at='head.fc'),
                    dict(type='mmfeataug.SeA', at='head.fc'),
                ],
                {'moex.view_0.image_0', 'moex.view_0.image_1', 'stability.view_0', 'sea.view_0'},
                marks=pytest.mark.classification,
            ),
        ],
        ids=['detector', 'classifier'],
    )
    def test_other_tasks(self, tmp_path, build, images, augmentations, names):
        logs, weights = [], []
        for name, pictures in (('without', []), ('with', [dict(PICTURES, samples=images)])):
            model, spy = build(), Spy()
            inputs, samples = raw_test_batch(model, images=4)
            runner = Runner(
                model=model,
                work_dir=str(tmp_path / name),
                train_dataloader=dict(
                    dataset=[
                        dict(inputs=x, data_samples=s) for x, s in zip(inputs, samples, strict=True)
                    ],
                    batch_size=4,
                    sampler=dict(type='DefaultSampler', shuffle=False),
                    collate_fn=dict(type='pseudo_collate'),
                ),
                train_cfg=dict(by_epoch=True, max_epochs=2),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
                custom_hooks=[
                    dict(type='mmfeataug.FeatureAugHook', augmentations=augmentations),
                    *pictures,
                    spy,
                ],
                default_scope='mmengine',
                randomness=dict(seed=5),
                log_level='ERROR',
                experiment_name=f'{name}-{torch.rand(1).item()}',
            )
            runner.train()
            logs.append(spy.logs)
            weights.append(runner.model.state_dict())
        assert logs[0] == logs[1]
        assert_same(weights[0], weights[1])
        assert set(steps(tmp_path / 'with')) == names

    def test_resume(self, tmp_path, quick):
        """Drawn after a resume is what the uninterrupted run draws."""
        hooks = [
            dict(type='mmfeataug.FeatureAugHook', augmentations=[AUGMENTATION]),
            dict(PICTURES, interval=2),
        ]

        def runner(name, spy=None, **kwargs):
            return make_runner(
                tmp_path / name, hooks[0], by_iter=6, spy=spy, hooks=[*hooks[1:], Draws()], **kwargs
            )

        whole = runner('whole')
        whole.train()
        with pytest.raises(KeyboardInterrupt):
            runner('cut', Spy(3)).train()
        second = runner('rest', load_from=str(tmp_path / 'cut' / 'killed.pth'), resume=True)
        second.train()
        assert_same(second.model.state_dict(), whole.model.state_dict())
        assert steps(tmp_path / 'whole') == {'afan.view_0': [1, 2, 4, 6]}
        assert steps(tmp_path / 'rest') == {'afan.view_0': [4, 6]}
        again, first = (local_images(tmp_path / n)['afan.view_0'][6] for n in ('rest', 'whole'))
        np.testing.assert_array_equal(again, first)


def test_a_visualizer_without_backends_is_said(tmp_path, monkeypatch):
    runner = make_runner(tmp_path, FeatureAugHook([AUGMENTATION]), hooks=[PICTURES], epochs=1)
    monkeypatch.setattr(runner.visualizer, '_vis_backends', {})
    said = []
    monkeypatch.setattr(runner.logger, 'warning', lambda text, *args: said.append(text))
    runner.train()
    assert any('vis_backends=[], so that pictures go nowhere' in text for text in said)


def test_colours_of_a_model_without_feature_aug_hook():
    """Nobody but this hook looks at the pipeline then."""
    model = build_segmentor()
    dataset = SimpleNamespace(pipeline=[Normalize([1.0] * 3, [2.0] * 3)])
    runner = SimpleNamespace(
        model=model,
        train_dataloader=SimpleNamespace(dataset=dataset),
        visualizer=SimpleNamespace(_vis_backends={'LocalVisBackend': None}),
    )
    before = len(PixelScale(model)._affine)
    handle = attach(model, [AUGMENTATION])
    FeatureAugVisualizationHook().before_train(runner)
    handle.detach()
    assert len(PixelScale(model)._affine) == before + 1


def test_training_goes_on_without_pictures(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError('disk is full')

    monkeypatch.setattr(visualization_hook, 'draw', refuse)
    runner = make_runner(tmp_path, FeatureAugHook([AUGMENTATION]), hooks=[PICTURES], epochs=1)
    said = []
    monkeypatch.setattr(runner.logger, 'warning', lambda text, *args: said.append(text % args))
    runner.train()
    assert runner.iter == 4
    assert said[0] == 'afan at backbone.layer3 is not drawn: OSError: disk is full'


@pytest.mark.usefixtures('quick')
class TestWhen:
    @pytest.mark.parametrize(
        ('settings', 'driver', 'expected'),
        [
            (dict(interval=3), dict(), [0, 2, 5]),
            (dict(interval=1, by_epoch=True), dict(), [0, 4]),
            (dict(interval=2, by_epoch=True), dict(), [0, 4]),
            # What does not act is waited for, and looked at when its schedule has come.
            (dict(interval=6), dict(begin=2), [2, 5]),
            (dict(interval=6), dict(warmup=4), [1, 5]),
            (dict(interval=3), dict(end=2), [0]),
        ],
    )
    def test_off_iterations_attach_nothing(self, tmp_path, settings, driver, expected):
        watched = Watched()
        hook = FeatureAugHook([AUGMENTATION], **driver)
        logged(tmp_path, [hook, dict(PICTURES, **settings), watched])
        assert watched.iterations == expected

    def test_drawn_when_it_acts(self, tmp_path):
        hook = FeatureAugHook([AUGMENTATION], begin=2, interval=3)
        logged(tmp_path, [hook, dict(PICTURES, interval=4)])
        assert steps(tmp_path) == {'afan.view_0': [3, 6]}

    def test_what_does_not_act_is_not_drawn(self, tmp_path):
        entries = [dict(type='mmfeataug.PAdaIN', at='backbone.layer1', prob=1e-9)]
        watched = Watched()
        logged(tmp_path, [FeatureAugHook(entries), PICTURES, watched], epochs=1)
        assert not local_images(tmp_path)
        assert watched.iterations == [0, 1, 2, 3]

    def test_epochs_of_an_iteration_based_run(self, tmp_path):
        watched = Watched()
        hooks = [FeatureAugHook([AUGMENTATION]), dict(PICTURES, interval=2, by_epoch=True), watched]
        logged(tmp_path, hooks, by_iter=13)
        assert watched.iterations == [0, 4, 12]

    def test_what_never_acts_again_is_not_watched(self, tmp_path):
        entries = [dict(type='mmfeataug.PAdaIN', at='backbone.layer1', prob=1e-9)]
        watched = Watched()
        logged(tmp_path, [FeatureAugHook(entries, end=2), PICTURES, watched], epochs=1)
        assert watched.iterations == [0, 1]

    def test_one_view_of_several_augmentations(self, tmp_path):
        """As a budget chooses them. Layers act beside it."""

        class Only(Hook):
            priority = 'BELOW_NORMAL'

            def before_train_iter(self, runner, batch_idx, data_batch=None):
                name = 'afan2' if runner.iter == 2 else 'afan'
                handle = runner.model.loss
                handle.plan = replace(handle.plan, only=Choice(name, 0))

        layer = dict(type='mmfeataug.NormalizationPerturbation', at='backbone.layer1', prob=1.0)
        entries = [AUGMENTATION, dict(AUGMENTATION, at='backbone.layer2'), layer]
        watched = Watched()
        hook = FeatureAugHook(entries, clean_weight=1.0)
        logged(tmp_path, [hook, PICTURES, Only(), watched], epochs=1)
        assert watched.iterations == [0, 2]
        names = steps(tmp_path)
        assert names.pop('afan.view_0') == [1]
        assert names.pop('afan2.view_0') == [3]
        assert list(names.values()) == [[1]]

    def test_prob_is_left_alone(self, tmp_path):
        entries = [dict(type='mmfeataug.PAdaIN', at='backbone.layer1', prob=0.25)]

        class Look(Spy):
            def after_train_iter(self, runner, *args, **kwargs):
                (augmentation,) = runner.model.loss.augmentations.values()
                assert augmentation.prob == 0.25

        spy = Look()
        make_runner(tmp_path, FeatureAugHook(entries), spy=spy, hooks=[PICTURES]).train()

    def test_views_that_are_not_finite(self, tmp_path, monkeypatch):
        def broken(self, features, gradients, tail):
            for view in views(self, features, gradients, tail):
                view.features[0][0, 0, 0, 0] = float('nan')
                yield view

        views = AFAN.views
        monkeypatch.setattr(AFAN, 'views', broken)
        logged(tmp_path, [FeatureAugHook([AUGMENTATION]), PICTURES], epochs=1)
        assert not local_images(tmp_path)


class TestWrappers:
    @pytest.mark.parametrize('driver', [True, False])
    def test_declared_layers(self, tmp_path, driver, quick):
        """In place, so no FeatureAugHook is needed."""
        cfg = deeplab_cfg()
        cfg['data_preprocessor']['size'] = (32, 32)
        style = dict(type='mmfeataug.MixStyle', at='layer1', prob=1.0, alpha=1.0)
        cfg['backbone'] = dict(
            type='mmfeataug.AugmentedBackbone',
            backbone=cfg['backbone'],
            augmentations=[style, dict(style, at='layer2')] + driver * [dict(AFAN2, at='layer3')],
        )
        hooks = [FeatureAugHook()] if driver else []
        runner = make_runner(
            tmp_path, model=build_segmentor(ConfigDict(cfg)), hooks=[*hooks, PICTURES]
        )
        runner.train()
        names = {name.partition('.')[0] for name in steps(tmp_path)}
        assert names == {'mixstyle', 'mixstyle2'} | ({'afan'} if driver else set())
        layer = next(iter(runner.model.backbone.layer1._forward_hooks.values())).__self__
        assert layer.observer is None
        copy.deepcopy(runner.model)

    def test_distributed_wrapper(self, tmp_path, quick):
        """By one process: what counts is the way to the model inside."""
        torch.distributed.init_process_group(
            'gloo', init_method=f'file://{tmp_path / "rendezvous"}', rank=0, world_size=1
        )
        try:
            wrapper = dict(
                type='MMDistributedDataParallel', find_unused_parameters=True, device_ids=None
            )
            runner = make_runner(
                tmp_path,
                FeatureAugHook([AUGMENTATION]),
                hooks=[PICTURES],
                epochs=1,
                launcher='none',
                cfg=dict(model_wrapper_cfg=wrapper),
            )
            runner.model = runner.wrap_model(wrapper, runner.model)
            runner.train()
        finally:
            torch.distributed.destroy_process_group()
        assert steps(tmp_path) == {'afan.view_0': [1]}


class TestRefusals:
    @pytest.mark.parametrize(
        ('settings', 'message'),
        [
            (dict(interval=0), 'interval=0'),
            (dict(interval=2.5), 'interval=2.5'),
            (dict(samples=0), 'samples=0'),
            (dict(samples=True), 'samples=True'),
        ],
    )
    def test_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            FeatureAugVisualizationHook(**settings)

    def test_nothing_to_draw(self, tmp_path):
        with pytest.raises(
            ValueError, match=r'finds no augmentation to draw: add .*FeatureAugHook'
        ):
            make_runner(tmp_path, hooks=[PICTURES]).train()
