# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Pictures of what augmentations do: what is drawn is what the engine trains on."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import mmfeataug
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.visualization import (
    Change,
    draw_change,
    overlay,
    record,
    save,
    stop_recording,
    to_array,
)
from tests.models import build_segmentor, random_test_batch, step
from tests.test_tools import SEGMENTATION, data_options, run

ENTRIES = """
_base_ = {base!r}
custom_hooks = [
    dict(type='mmfeataug.FeatureAugHook', augmentations=[
        dict(type='mmfeataug.AFAN', at='backbone.layer2', strengths=(0.5, 1.0)),
        dict(type='mmfeataug.PAdaIN', at='backbone.layer1'),
        dict(type='mmfeataug.AdvStyle'),
        dict(type='mmfeataug.SeA', at='decode_head.conv_seg'),
        dict(type='mmfeataug.FMA', at=['backbone.layer3', 'backbone.layer4']),
    ])
]
"""


def recorded(config):
    model = build_segmentor()
    batch = random_test_batch(model)
    augmentation = AUGMENTATIONS.build(config)
    changes = record(augmentation)
    with mmfeataug.attach(model, [augmentation]):
        found = step(model, batch)
    return changes, found


@pytest.mark.parametrize(
    ('config', 'count'),
    [
        (dict(type='AFAN', at='backbone.layer2', strengths=(0.5, 1.0)), 2),
        (dict(type='PAdaIN', at='backbone.layer1', prob=0.0), 1),
        (dict(type='SeA', at='decode_head.conv_seg', rows=16), 1),
        (dict(type='FMA', at=['backbone.layer3', 'backbone.layer4']), 2),
    ],
)
def test_record(config, count):
    changes, (_, gradients) = recorded(config)
    assert len(changes) == count
    for change in changes:
        assert change.clean.shape == change.view.shape
        assert not torch.equal(change.clean, change.view)
        assert not change.clean.requires_grad
        assert not change.view.requires_grad
        assert (change.images is not None) == (config['type'] == 'FMA')
    if config['type'] == 'AFAN':
        steps = [(c.view - c.clean).abs().max() for c in changes]
        assert steps[1] == pytest.approx(1 / 255, rel=1e-3)
        assert steps[0] == pytest.approx(0.5 / 255, rel=1e-3)
    if 'prob' not in config:
        # Looking on changes nothing.
        model = build_segmentor()
        batch = random_test_batch(model)
        with mmfeataug.attach(model, [config]):
            _, plain = step(model, batch)
        assert all(torch.equal(gradients[n], plain[n]) for n in plain if plain[n] is not None)


def test_record_keeps_what_was_asked_for():
    model = build_segmentor()
    batch = random_test_batch(model)
    never = AUGMENTATIONS.build(dict(type='PAdaIN', at='backbone.layer1', prob=1e-9))
    both = AUGMENTATIONS.build(dict(type='AFAN', at='backbone.layer2'))
    changes = [record(a, samples=1, always=False) for a in (never, both)]
    with mmfeataug.attach(model, [never, both]):
        step(model, batch)
        # Of two steps, the first.
        first = changes[1][0].view.clone()
        step(model, batch)
        stop_recording(both)
    assert both.observer is None
    assert never.prob == 1e-9
    assert changes[0] == []
    (change,) = changes[1]
    assert len(change.clean) == len(change.view) == 1
    assert (change.count, change.index, change.level) == (2, 0, 0)
    assert torch.equal(change.view, first)


def test_record_is_not_overwritten():
    """The ReLU behind the first norm works in place."""
    model = build_segmentor()
    batch = random_test_batch(model)
    augmentation = AUGMENTATIONS.build(dict(type='PAdaIN', at='backbone.bn1', prob=1.0))
    changes = record(augmentation)
    with mmfeataug.attach(model, [augmentation]):
        step(model, batch)
    assert changes[0].view.min() < 0


def test_overlay():
    grey = np.full((40, 60, 3), 128.0)
    difference = torch.zeros(8, 4, 6)
    difference[:, 1, 4] = -0.3
    place = overlay(difference, grey).astype(int)
    red, blue = place[..., 0] - place[..., 2], place[..., 2] - place[..., 0]
    assert np.unravel_index(red.argmax(), red.shape) == pytest.approx((14, 44), abs=3)
    assert (blue[25:] > 50).all()
    # A difference of one size is one of the largest size everywhere; rounding is not shown.
    even = overlay(torch.full((8, 4, 6), 0.1) * (1 + 1e-6 * torch.rand(8, 4, 6)), grey).astype(int)
    assert even.std((0, 1)).max() < 2
    assert (even[..., 0] > even[..., 2]).all()


@pytest.mark.parametrize('shape', [(2, 8, 4, 6), (2, 24, 8), (30, 8)])
def test_change_is_drawn(tmp_path, shape):
    clean = torch.randn(shape)
    change = Change(clean, clean + 0.1 * torch.randn(shape))
    images = np.random.default_rng(0).uniform(0, 255, (2, 40, 60, 3))
    figure = draw_change(change, images, 'title', located=len(shape) > 2)
    array = to_array(figure)
    assert array.dtype == np.uint8
    assert array.shape[2] == 3
    assert array.std() > 20
    assert save(figure, tmp_path / 'new' / 'a.png').stat().st_size > 10000
    other = draw_change(Change(clean, clean + 1), images, 'title', located=len(shape) > 2)
    assert not np.array_equal(to_array(other), array)


def test_tool_draws_every_kind(demo_data, tmp_path):
    from PIL import Image

    config = tmp_path / 'config.py'
    config.write_text(ENTRIES.format(base=str(SEGMENTATION)))
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, tmp_path / 'weights.pth')
    options = [
        *data_options(demo_data['cityscapes']),
        'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
        'model.data_preprocessor.size=(64,64)',
    ]
    tool = 'analysis_tools/visualize_features.py'
    args = [tmp_path / 'weights.pth', '2', '--out', tmp_path / 'out', '--cfg-options', *options]
    run(tool, config, *args[:4], '--corruption', 'gaussian_noise', 5, *args[4:])
    names = ['0_afan_0', '0_afan_1', '1_padain_0', '2_advstyle_0', '3_sea_0', '4_fma_0']
    assert sorted(p.stem for p in (tmp_path / 'out').iterdir()) == [*names, 'predictions']
    # A row for the clean image, one for the corrupted.
    rows = np.array_split(np.asarray(Image.open(tmp_path / 'out/predictions.png'), float), 2)
    assert not np.allclose(rows[0][: len(rows[1])], rows[1], atol=20)
    for path in (tmp_path / 'out').iterdir():
        assert Image.open(path).width > 500
    args[1] = 'nowhere.png'
    assert "image='nowhere.png'" in run(tool, config, *args, ok=False)
