# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 7, training settings: under each, unmoved views train to the same weights.

Settings of several processes are tried by test_6_processes.
"""

import copy
import tempfile
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.runner import FlexibleRunner, Runner
from torch import distributed

from mmfeataug.hooks import FeatureAugHook
from mmfeataug.hooks.faults import _wrapper_setting
from tests import models
from tests.oracle import Unmoved
from tests.test_hooks import test_feature_aug_hook as hook_tests

EncoderDecoder = pytest.importorskip('mmseg.models').EncoderDecoder


def segmentor(kind='EncoderDecoder', **backbone):
    """DeepLabV3+ with narrow stages."""
    stages = dict(base_channels=8, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    cfg = models.deeplab_cfg(backbone={**models.resnet(), **stages, **backbone})
    cfg['type'] = kind
    cfg['data_preprocessor']['size'] = (32, 32)
    cfg['decode_head'].update(in_channels=64, c1_in_channels=8)
    cfg['auxiliary_head'].update(in_channels=32)
    return models.build_segmentor(cfg)


def beit():
    """The constructor of learning rates by layer asks for a backbone of this name."""
    cfg = models.deeplab_cfg()
    size = dict(img_size=32, patch_size=8, embed_dims=16, num_layers=3, num_heads=2)
    cfg['backbone'] = dict(type='BEiT', out_indices=(1, 2), **size)
    cfg['data_preprocessor']['size'] = (32, 32)
    cfg['decode_head'] = {**cfg.pop('auxiliary_head'), 'in_channels': 16, 'in_index': 1}
    return models.build_segmentor(cfg)


def detector(**preprocessor):
    cfg = models.faster_rcnn_cfg({**models.resnet(), 'base_channels': 8}, channels=(8, 16, 32, 64))
    cfg['data_preprocessor'].update(preprocessor)
    return models.build_detector(cfg)


def with_spare():
    """A segmentor with parameters that its loss does not use."""
    model = segmentor()
    model.spare = torch.nn.Linear(2, 2)
    return model


class Watch(hook_tests.Spy):
    """Keeps the weights before training and after each iteration, those of EMAHook too."""

    def before_train(self, runner):
        self.states = []
        self.keep(runner)

    def after_train_iter(self, runner, *args, **kwargs):
        super().after_train_iter(runner, *args, **kwargs)
        self.keep(runner)

    def keep(self, runner):
        weights = dict(getattr(runner.model, 'module', runner.model).state_dict())
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                weights |= {f'ema.{k}': v for k, v in hook.ema_model.module.state_dict().items()}
        self.states.append({k: v.clone() for k, v in weights.items()})

    def moved(self, part, by=-1):
        """Names of the weights and buffers that training changed, of those with ``part`` in it."""
        names = [k for k in self.states[0] if part in k]
        assert names
        return [k for k in names if not torch.equal(self.states[0][k], self.states[by][k])]


class Boxes(hook_tests.Samples):
    def __init__(self):
        batch = models.raw_test_batch(detector(), images=8)
        self.data = [dict(inputs=x, data_samples=s) for x, s in zip(*batch, strict=True)]


# Items are given out as copies.
samples, boxes = cache(hook_tests.Samples), cache(Boxes)


class Same(Unmoved):
    """With the clean loss at half, an unmoved view makes the stock step."""

    def __init__(self, at):
        super().__init__(at=at, weight=0.5, learn='network', bn='frozen')


def run(build, views=True, at='backbone.layer3', cls=Runner, samples=samples, **kwargs):
    """One epoch: four iterations of a process or two of two, each with views or stock."""
    watch = Watch()
    hook = FeatureAugHook([Same(at)], clean_weight=0.5, prob=float(views))
    # FlexibleRunner writes into what it is given.
    kwargs = copy.deepcopy({'epochs': 1, 'default_hooks': dict(checkpoint=None), **kwargs})
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.device.utils.DEVICE', kwargs.pop('device', 'cpu'))
        patch.setattr(hook_tests, 'Samples', samples)
        patch.setattr(hook_tests, 'Runner', cls)
        runner = hook_tests.make_runner(Path(folder), hook, spy=watch, model=build(), **kwargs)
        runner.train()
    assert len(watch.active) > 1
    assert all(active == views for active in watch.active)
    return runner, watch


def agree(build, **kwargs):
    """Train with unmoved views that teach the network, and stock, and compare; returns what the
    one under test has left."""
    _, stock = run(build, views=False, **kwargs)
    runner, watch = run(build, **kwargs)
    torch.testing.assert_close(watch.states[-1], stock.states[-1], rtol=1e-3, atol=2e-5)
    return runner, watch


def learning_rates(runner):
    return sorted({group['lr'] for group in runner.optim_wrapper.param_groups})


def test_gradient_accumulation():
    _, watch = agree(segmentor, optim_wrapper=dict(accumulative_counts=2))
    assert not watch.moved('weight', by=1)
    assert watch.moved('weight', by=2)


def test_gradient_clipping():
    runner, _ = agree(segmentor, optim_wrapper=dict(clip_grad=dict(max_norm=0.1)))
    assert runner.message_hub.get_scalar('train/grad_norm').min() > 0.1


def test_ema_hook():
    _, watch = agree(segmentor, hooks=[dict(type='EMAHook', momentum=0.1, update_buffers=True)])
    assert watch.moved('ema.backbone.layer4')
    last = watch.states[-1]
    assert not torch.equal(last['backbone.conv1.weight'], last['ema.backbone.conv1.weight'])


def test_paramwise_cfg():
    factors = dict(custom_keys={'backbone': dict(lr_mult=0.1)}, norm_decay_mult=0.0)
    runner, _ = agree(segmentor, optim_wrapper=dict(paramwise_cfg=factors))
    assert learning_rates(runner) == pytest.approx([0.001, 0.01])


def test_layer_decay():
    factors = dict(num_layers=3, decay_rate=0.5, decay_type='layer_wise_vit')
    kind = 'LearningRateDecayOptimizerConstructor'
    optim_wrapper = dict(constructor=kind, paramwise_cfg=factors)
    runner, _ = agree(beit, at='backbone.layers.1', optim_wrapper=optim_wrapper)
    assert learning_rates(runner) == pytest.approx([0.01 * 0.5**i for i in (4, 3, 2, 1, 0)])


def test_frozen_stages():
    """The tap is on the last frozen stage."""
    _, watch = agree(partial(segmentor, frozen_stages=2), at='backbone.layer2')
    for part in ('backbone.conv1', 'backbone.bn1', 'backbone.layer1', 'backbone.layer2'):
        assert not watch.moved(part)
    assert watch.moved('backbone.layer3')


def test_norm_eval():
    _, watch = agree(partial(segmentor, norm_eval=True))
    statistics = {k for k in watch.states[0] if 'running' in k and 'backbone' in k}
    assert not statistics & set(watch.moved('running'))
    assert watch.moved('decode_head.bottleneck.bn.running')
    assert watch.moved('backbone.bn1.weight')


def test_sync_bn():
    """A Runner of one process turns such layers into batch norms, also the one that is tapped."""
    build = partial(segmentor, norm_cfg=dict(type='SyncBN', requires_grad=True))
    assert isinstance(build().backbone.bn1, torch.nn.SyncBatchNorm)
    runner, watch = agree(build, at='backbone.layer3.0.bn1')
    assert not any(isinstance(m, torch.nn.SyncBatchNorm) for m in runner.model.modules())
    assert watch.moved('backbone.layer3.0.bn1.running')


def test_batch_augments():
    sizes = []
    resize = dict(type='BatchSyncRandomResize', random_size_range=(64, 96), interval=1)

    def build():
        model = detector(batch_augments=[resize])
        model.backbone.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[-1]))
        return model

    agree(build, at='backbone.layer2', samples=boxes)
    assert len(set(sizes)) > 1


class TwoOptimizers(EncoderDecoder):
    """Steps the backbone by one optimizer, the heads by another."""

    def train_step(self, data, optim_wrapper):
        with optim_wrapper['backbone'].optim_context(self):
            losses = self._run_forward(self.data_preprocessor(data, True), mode='loss')
        total, logs = self.parse_losses(losses)
        optim_wrapper['backbone'].update_params(total)
        optim_wrapper['heads'].step()
        optim_wrapper['heads'].zero_grad()
        return logs


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class BackboneAndHeads:
    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        pass

    def __call__(self, model):
        heads = [p for n, p in model.named_parameters() if not n.startswith('backbone')]
        return OptimWrapperDict(
            backbone=OptimWrapper(torch.optim.SGD(model.backbone.parameters(), 0.01, 0.9)),
            heads=OptimWrapper(torch.optim.SGD(heads, 0.002)),
        )


def test_several_optimizers():
    build = partial(segmentor, TwoOptimizers)
    _, watch = agree(build, optim_wrapper=dict(constructor='BackboneAndHeads'))
    for part in ('backbone.layer4', 'decode_head', 'auxiliary_head'):
        assert watch.moved(f'{part}.')


@pytest.mark.parametrize('compile', [True, dict()])
def test_compile_is_refused(compile):
    with pytest.raises(ValueError, match=r'compile is set.*remove it'):
        run(segmentor, cfg=dict(compile=compile))
    with pytest.raises(ValueError, match=r'compile is set.*remove it'):
        run(segmentor, cls=FlexibleRunner, compile=compile)


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_amp_optim_wrapper(monkeypatch, dtype, device):
    """With a dynamic loss scale. mmengine's wrapper asks for an accelerator: on a CPU, it is told
    that there is one, and its scaler and autocast are those of the CPU.
    """
    if device == 'cpu':
        if not models.half_on_cpu():
            pytest.skip('no scaler on CPUs')
        module = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
        monkeypatch.setattr(f'{module}.is_cuda_available', lambda: True)
        monkeypatch.setattr(f'{module}.GradScaler', partial(torch.amp.GradScaler, device='cpu'))
        monkeypatch.setattr('mmengine.runner.amp.autocast', partial(torch.autocast, 'cpu'))
    updates = []
    for views in (True, False):
        scale = dict(init_scale=2.0**12)
        optim_wrapper = dict(type='AmpOptimWrapper', dtype=dtype, loss_scale=scale)
        runner, watch = run(segmentor, views, device=device, optim_wrapper=optim_wrapper)
        # An overflow would have halved it.
        assert runner.optim_wrapper.loss_scaler.get_scale() == 2.0**12
        # The first step: later ones make more of coarse roundings, which are other ones on each
        # kind of processor.
        first, last = watch.states[:2]
        names = [name for name, _ in runner.model.named_parameters()]
        updates.append(torch.cat([(last[n] - first[n]).flatten() for n in names]))
        assert updates[-1].isfinite().all()
    assert torch.dist(*updates) < 0.05 * updates[1].norm()


# Of the model's wrapper under Runner; the first is for FlexibleRunner's strategy.
PROCESSES = {
    'flexible_runner_ddp': (segmentor, {}),
    'find_unused_parameters_on': (with_spare, dict(find_unused_parameters=True)),
    'find_unused_parameters_off': (segmentor, dict(find_unused_parameters=False)),
    'static_graph': (segmentor, dict(static_graph=True)),
}


def two_processes(setting):
    """What each of two processes runs; see test_6_processes."""
    build, options = PROCESSES[setting]
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, **options)
    cls, extra = Runner, dict(cfg=dict(model_wrapper_cfg=wrapper))
    if setting.startswith('flexible'):
        strategy = dict(type='DDPStrategy', model_wrapper=wrapper)
        cls, extra = FlexibleRunner, dict(strategy=strategy)
    runner, watch = agree(build, cls=cls, launcher='pytorch', **extra)
    assert type(runner) is cls
    assert type(runner.model).__name__ == 'MMDistributedDataParallel'
    assert watch.moved('backbone.layer4')
    assert build is segmentor or not watch.moved('spare')
    mine = torch.cat([p.detach().flatten() for p in runner.model.parameters()])
    both = [torch.empty_like(mine) for _ in range(2)]
    distributed.all_gather(both, mine)
    assert torch.equal(*both)


@pytest.mark.parametrize('wrapper', [None, dict(type='MMDistributedDataParallel')])
def test_a_wrapper_config_has_the_last_word(wrapper):
    """mmengine does not read the setting beside it."""
    cfg = dict(find_unused_parameters=True, **(dict(model_wrapper_cfg=wrapper) if wrapper else {}))
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1), cfg=cfg)
    assert _wrapper_setting(runner, 'find_unused_parameters') is (wrapper is None)
