# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Signs of a hidden gradient: silent on honest models, loud on those that hide it."""

import copy
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmfeataug.engine import TapError
from mmfeataug.evaluation.attacks.attacked_batch import Target
from mmfeataug.evaluation.attacks.masking import MaskingCheck, fired, flag_lines, signs
from mmfeataug.evaluation.attacks.pgd import PGD
from mmfeataug.evaluation.attacks.transfer import Transferred
from mmfeataug.utils.pixels import PixelScale
from tests import models
from tests.test_evaluation.test_adversarial import (
    KINDS,
    PREPROCESSOR,
    build_from,
    config_of,
    made,
)

SETTINGS = dict(at='inputs', eps=4.0, steps=6, unit='pixel')
STEPS, GUESS = 'more steps gain nothing', 'a random direction is as strong'
FLOOR, TRANSFER = 'eps 64 leaves more than the floor', 'a transferred attack is stronger'


class Quantised(nn.Module):
    """Rounds images to eight levels, whose gradient is 0."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        step = (255 / 8) / 60
        return self.inner(torch.round(x / step) * step)


class Detached(nn.Module):
    """The image goes on detached; a gradient comes by another way, with random signs."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        signs = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).sub(0.5).sign()
        return self.inner(x.detach() + (x - x.detach()) * signs.to(x))


def wide_detector():
    cfg = models.faster_rcnn_cfg(channels=(64, 128, 256, 512))
    return models.build_detector(dict(cfg, data_preprocessor=PREPROCESSOR))


@pytest.fixture(scope='module')
def learnt():
    """Models that know their few images by heart, once for each task."""
    known = {}

    def get(kind):
        if kind not in known:
            # Narrow models learn too little.
            with pytest.MonkeyPatch.context() as patch:
                if kind != 'classifier':
                    patch.setattr(models, 'BASE', 64)
                    patch.setitem(KINDS, 'detector', wide_detector)
                model, inputs, samples = made(kind, images=2 if kind == 'segmentor' else 4)
            if kind == 'segmentor':
                # Grey by class, so that there is something to learn fast.
                labels = torch.stack([s.gt_sem_seg.data for s in samples]).clamp(max=4)
                inputs = 0.2 * inputs.clamp(-1, 1) + 0.5 * (labels - 2)
            model.train()
            optimizer = torch.optim.Adam(model.parameters(), 3e-3)
            for _ in range(dict(classifier=25, segmentor=30, detector=60)[kind]):
                optimizer.zero_grad()
                noisy = inputs + 0.02 * torch.randn(inputs.shape)
                model.parse_losses(model.loss(noisy, samples))[0].backward()
                optimizer.step()
            settle(model, inputs, samples)
            known[kind] = model.eval(), inputs, samples
        return known[kind]

    return get


@torch.no_grad()
def settle(model, inputs, samples):
    """Running statistics of the last weights, not of all that were before."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
    model.loss(inputs, samples)


def flags(model, inputs, samples, other=None):
    check = MaskingCheck(SETTINGS, transfers=other is not None)

    def transfer():
        attack = copy.copy(check.attack)
        with Target(other).open(inputs, samples) as batch:
            return batch.attack(attack)

    with Target(model).open(inputs, samples) as batch:
        check.add(batch, transfer if other is not None else None)
    return check.result()


TASKS = ['classifier', 'segmentor', pytest.param('detector', marks=pytest.mark.slow)]


@pytest.mark.parametrize('task', TASKS)
def test_honest_and_masked_models(task, learnt):
    model, inputs, samples = learnt(task)
    honest = flags(model, inputs, samples, other=copy.deepcopy(model))
    assert honest['measured']['clean']['score'] > 0.6
    assert fired(honest) == [], honest
    for wrapper in (Quantised, Detached):
        masked = copy.deepcopy(model)
        masked.backbone = wrapper(masked.backbone)
        found = flags(masked, inputs, samples, other=model)
        assert {GUESS, TRANSFER} <= set(fired(found)), found
        # Noise of 64 grey levels is enough for small classifiers and detectors.
        assert FLOOR in fired(found) or task != 'segmentor', found
        assert STEPS in fired(found) or wrapper is Detached, found


def test_a_cut_gradient_is_said(learnt):
    model, inputs, samples = learnt('classifier')
    cut = copy.deepcopy(model)
    cut.backbone.register_forward_pre_hook(lambda module, args: args[0].detach())
    with pytest.raises(TapError, match='no_grad'), Target(cut).open(inputs, samples):
        pass


def measured(**changed):
    values = {
        'clean': (0.3, 0.8),
        'random direction': (0.4, 0.7),
        '1 step': (2.0, 0.3),
        'steps': (4.0, 0.1),
        'twice the steps': (4.5, 0.1),
        'eps 64': (30.0, 0.0),
        'transferred': (1.0, 0.5),
        **changed,
    }
    return {name: dict(loss=loss, score=score) for name, (loss, score) in values.items()}


@pytest.mark.parametrize(
    ('changed', 'expected'),
    [
        ({}, []),
        ({'1 step': (4.49, 0.1)}, [STEPS]),
        ({'eps 64': (9.0, 0.05)}, [FLOOR]),
        ({'random direction': (2.2, 0.5)}, [GUESS]),
        ({'transferred': (4.1, 0.1)}, [TRANSFER]),
        ({'1 step': (0.3, 0.8), 'steps': (0.3, 0.8), 'twice the steps': (0.3, 0.8)},)
        + ([STEPS, GUESS, TRANSFER],),
    ],
)
def test_when_each_fires(changed, expected):
    found = dict(signs=signs(measured(**changed), 4.0, 10), eps=4.0, images=3)
    assert fired(found) == expected
    text = '\n'.join(flag_lines(found))
    assert text.count('**FIRED**') == len(expected)
    assert '4 on 3 images' in text.replace('eps ', '')
    assert all(sign['meaning'] for sign in found['signs'])


def test_what_was_not_measured_does_not_fire():
    none = dict.fromkeys(measured(), (None, None))
    found = dict(signs=signs(measured(**none), 4.0, 10), eps=4.0, images=0)
    assert fired(found) == []
    assert [sign['fired'] for sign in found['signs']] == [None] * 4
    assert '\n'.join(flag_lines(found)).count('not measured:') == 4


@pytest.mark.classification
@pytest.mark.parametrize('turned', [False, True])
def test_another_order_of_colours_is_transferred(turned, tmp_path):
    """Two networks of the same function, of which one sees RGB and the other perhaps BGR."""
    from mmpretrain.structures import DataSample

    init_default_scope('mmpretrain')

    def cfg(rgb):
        mean, std = ([120.0, 115.0, 100.0], [58.0, 57.0, 60.0])
        order = 1 if rgb else -1
        return dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=64),
            data_preprocessor=dict(
                type='ClsDataPreprocessor', mean=mean[::order], std=std[::order], to_rgb=rgb
            ),
        )

    torch.manual_seed(0)
    model = MODELS.build(cfg(True))
    model.init_weights()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    if turned:
        state['backbone.conv1.weight'] = state['backbone.conv1.weight'].flip(1)
    checkpoint = tmp_path / 'other.pth'
    torch.save(dict(state_dict=state), checkpoint)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    # The blue channel is dark: order matters.
    images[:, 0] //= 4
    size = dict(img_shape=(32, 32), ori_shape=(32, 32), scale_factor=(1.0, 1.0))
    samples = [DataSample(metainfo=dict(size, img_path=f'{i}.png')) for i in range(2)]
    batch = dict(inputs=list(images), data_samples=[s.set_gt_label(0) for s in samples])
    own = model.eval().data_preprocessor(copy.deepcopy(batch), False)['inputs']
    other = Config(dict(model=cfg(not turned)))
    transfer = Transferred(model, other, str(checkpoint), PGD(eps=2.0, steps=2), 0, None)
    (moved,) = transfer(batch, own, slice(0, 2))
    scale = PixelScale(model)
    assert (scale.raw(moved) - scale.raw(own)).abs().max() == pytest.approx(2.0, abs=0.01)


def test_flags_of_a_run(demo_data, tmp_path):
    """They are computed once, beside the curve, and do not change it."""
    name = 'deeplabv3plus_r18_demo-cityscapes'
    cfg = config_of(name, demo_data['cityscapes'])
    cfg.work_dir, cfg.log_level = str(tmp_path), 'ERROR'
    cfg.load_from = str(tmp_path / 'weights.pth')
    torch.save({'state_dict': build_from(name).state_dict()}, cfg.load_from)

    def tested(folder, **loop):
        cfg.experiment_name = f'flags_{tmp_path.name}'
        cfg.test_dataloader.dataset.indices = 2
        out_dir = tmp_path / folder
        loop = dict(loop, eps=[0, 2], steps=1, out_dir=str(out_dir))
        cfg.test_cfg = dict(type='mmfeataug.AdversarialTestLoop', **loop)
        Runner.from_cfg(cfg).test()
        return json.loads((out_dir / 'adversarial.json').read_text())

    plain = tested('plain', flag_images=0)
    assert 'flags' not in plain
    flagged = tested('flagged', flag_images=1, transfer=cfg.load_from)
    assert {**flagged, 'flags': None} == {**plain, 'flags': None}
    found = flagged['flags']
    assert found['eps'] == 2
    assert found['images'] == 1
    # The same weights: neither is stronger.
    assert TRANSFER in [sign['name'] for sign in found['signs']]
    assert TRANSFER not in fired(found)
    losses = found['measured']
    assert losses['transferred']['loss'] == pytest.approx(losses['steps']['loss'], rel=1e-4)
    assert 'Signs of a hidden gradient' in (tmp_path / 'flagged/adversarial.md').read_text()
    # Kept, and made anew for other images.
    file = tmp_path / 'flagged/adversarial.json'
    file.write_text(json.dumps({**flagged, 'flags': {**found, 'signs': []}}))
    kept = tested('flagged', flag_images=1, transfer=cfg.load_from, resume=True)
    assert kept['flags']['signs'] == []
    assert tested('flagged', flag_images=2, resume=True)['flags']['signs']
    # An ensemble says what it was made of; earlier settings have the same names.
    both = tested('ensemble', flag_images=0, attack='ensemble')
    assert sum(both['curve'][1]['won'].values()) == both['made_with']['images']
    assert 'Strongest at eps 2' in (tmp_path / 'ensemble/adversarial.md').read_text()
    assert {k for k in both if k != 'curve'} == {k for k in plain if k != 'curve'}
    with pytest.raises(ValueError, match=r'another attack \(restarts\)'):
        tested('plain', flag_images=0, restarts=2, resume=True)
    with pytest.raises(ValueError, match=r'transfer=.* of .swap.'):
        tested('other', attack='swap', at='backbone.layer1', transfer='x.pth')
