# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""AdAutoMix in real Runner loops: teacher, generator and optimizer through kill and resume."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import EMAHook, Hook

from mmfeataug.hooks import FeatureAugHook
from tests.contract.test_1_stock_outside import assert_same
from tests.launch import launch
from tests.models import build_segmentor, deeplab_cfg
from tests.test_hooks.test_feature_aug_hook import Draws, Spy, make_runner

pytestmark = pytest.mark.adautomix
ROOT = Path(__file__).resolve().parents[2]
OPTIM = dict(paramwise_cfg=dict(custom_keys={'feature_aug': dict(lr_mult=10.0)}))
TEACHER = dict(
    type='mmengine.EMAHook', ema_type='mmfeataug.CosineEMA', momentum=0.1, end_momentum=0.01
)
DRIVER = dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5)


def mixed_segmentor(**settings):
    entry = dict(
        type='mmfeataug.AdAutoMix',
        at='backbone.layer3',
        channels=64,
        compare='decode_head.conv_seg',
        **settings,
    )
    cfg = deeplab_cfg()
    cfg['data_preprocessor']['size'] = (32, 32)
    return build_segmentor(
        dict(cfg, type='mmfeataug.AugmentedModel', of=cfg['type'], augmentations=[entry])
    )


def runner_of(folder, spy=None, hook=DRIVER, hooks=(TEACHER,), **kwargs):
    kwargs.setdefault('model', mixed_segmentor())
    return make_runner(
        folder, hook, by_iter=6, spy=spy, hooks=[*hooks, Draws()], optim_wrapper=OPTIM, **kwargs
    )


class Look(Hook):
    """Keeps the weights of network and teacher after the last step."""

    priority = 'VERY_LOW'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        teacher = next(h for h in runner.hooks if isinstance(h, EMAHook)).ema_model
        self.network = {k: v.clone() for k, v in runner.model.state_dict().items()}
        self.teacher = {k: v.clone() for k, v in teacher.state_dict().items()}


def test_killed_and_resumed_is_uninterrupted(tmp_path):
    seen = [Look(), Look()]
    runner_of(tmp_path / 'whole', spy=seen[0]).train()
    with pytest.raises(KeyboardInterrupt):
        runner_of(tmp_path / 'cut', spy=Spy(3)).train()
    second = runner_of(
        tmp_path / 'cut',
        spy=seen[1],
        load_from=str(tmp_path / 'cut' / 'killed.pth'),
        resume=True,
    )
    second.train()
    assert_same(seen[0].network, seen[1].network)
    assert_same(seen[0].teacher, seen[1].teacher)
    assert seen[0].teacher['steps'] == 6


def test_the_generator_learns_at_its_own_rate_and_checkpoints_hold_the_teacher(tmp_path):
    look = Look()
    save = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=6))
    runner = runner_of(tmp_path, spy=look, default_hooks=save)
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()
    rates = {
        id(p): group['lr'] for group in runner.optim_wrapper.param_groups for p in group['params']
    }
    for name, parameter in runner.model.named_parameters():
        mixer = name.startswith('feature_aug')
        assert rates[id(parameter)] == pytest.approx(0.1 if mixer else 0.01)
    moved = [k for k in before if not torch.equal(before[k], look.network[k])]
    assert 'feature_aug.mixer.value.weight' in moved

    path = tmp_path / 'iter_6.pth'
    saved = torch.load(path, weights_only=False)
    for key, value in saved['state_dict'].items():
        assert torch.equal(value, look.teacher[f'module.{key}']), key
    assert not torch.equal(
        saved['state_dict']['decode_head.conv_seg.weight'],
        look.network['decode_head.conv_seg.weight'],
    )

    out = tmp_path / 'stock.pth'
    assert not launch(ROOT / 'tools/model_converters/to_stock.py', path, out).returncode
    stock = torch.load(out, weights_only=False)['state_dict']
    build_segmentor(deeplab_cfg()).load_state_dict(stock, strict=True)


def test_a_run_without_a_teacher_is_refused(tmp_path):
    with pytest.raises(ValueError, match='EMAHook'):
        runner_of(tmp_path, hooks=()).train()


def test_any_average_is_a_teacher(tmp_path):
    spy = Spy()
    runner_of(tmp_path, spy=spy, hooks=(dict(type='EMAHook', momentum=0.1),)).train()
    assert spy.active == [True] * 6
    for log in spy.logs:
        assert {f'adautomix.loss_{i}' for i in range(3)} <= log.keys()


@pytest.mark.parametrize('schedule', [dict(interval=2), dict(interval=2, begin=1)], ids=str)
def test_the_generator_has_both_aims_under_any_schedule(tmp_path, schedule):
    """Iterations with mixing take turns, not iterations."""
    spy = Spy()
    model = mixed_segmentor(beta=1.0, samples=2)
    runner_of(tmp_path, spy=spy, hook={**DRIVER, **schedule}, model=model).train()
    signs = [log['adautomix.loss_0'] > 0 for log in spy.logs if 'adautomix.loss_0' in log]
    assert signs == [False, True, False]


def test_the_first_teacher_is_the_network(tmp_path):
    """The hook copies the model before its weights are initialised."""

    class First(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 0:
                teacher = next(h for h in runner.hooks if isinstance(h, EMAHook)).ema_model
                assert_same(teacher.module.state_dict(), runner.model.state_dict())
                self.seen = True

    first = First()
    model = mixed_segmentor()
    model._is_init = False
    runner_of(tmp_path, spy=first, model=model).train()
    assert first.seen


def test_off_trains_like_stock(tmp_path):
    """Mixing that never begins leaves the network's weights as they are without the hook."""
    off = runner_of(tmp_path / 'off', hook=FeatureAugHook(prob=0.0, clean_weight=0.5))
    off.train()
    none = runner_of(tmp_path / 'none', hook=None)
    none.train()
    assert_same(off.model.state_dict(), none.model.state_dict())
