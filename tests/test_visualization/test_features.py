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
    deepest,
    draw_change,
    draw_copies,
    levels,
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
        dict(type='mmfeataug.PAdaIN', at=['backbone.layer1', 'backbone.layer[2]']),
        dict(type='mmfeataug.AdvStyle'),
        dict(type='mmfeataug.SeA', at='decode_head.conv_seg'),
        dict(type='FMA', at=['backbone.layer3', 'backbone.layer4']),
        dict(type='mmfeataug.AFAN', at='backbone'),
        dict(type='Twice', at='backbone.layer4'),
        dict(type='Nothing', at='backbone.layer1'),
    ])
]
custom_imports = dict(imports='methods_of_a_user')
"""
METHODS = """
from mmfeataug.methods import FMA
from mmfeataug.methods.statistic import StatisticTransform
from mmfeataug.registry import AUGMENTATIONS

@AUGMENTATIONS.register_module(force=True)
class Twice(FMA):
    def losses(self, *args):
        yield from super().losses(*args)
        yield from super().losses(*args)

@AUGMENTATIONS.register_module(force=True)
class Nothing(StatisticTransform):
    def __init__(self, *, at, prob=0.5):
        super().__init__(at=at, prob=prob)

    def transform(self, feature):
        return feature
"""


def recorded(config):
    model = build_segmentor()
    batch = random_test_batch(model)
    augmentation = AUGMENTATIONS.build(config)
    changes = record(augmentation)
    with mmfeataug.attach(model, [augmentation]):
        # By this seed the two images swap places; they may also keep them.
        found = step(model, batch, seed=0)
    return changes, found


@pytest.mark.parametrize(
    ('config', 'count'),
    [
        (
            dict(
                type='AFAN',
                at='backbone.layer2',
                unit='absolute',
                gamma=0.1,
                strengths=(0.5, 1.0),
            ),
            2,
        ),
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
        assert steps[1] == pytest.approx(0.1, rel=1e-3)
        assert steps[0] == pytest.approx(0.05, rel=1e-3)
    if 'prob' not in config:
        # Looking on changes nothing.
        model = build_segmentor()
        batch = random_test_batch(model)
        with mmfeataug.attach(model, [config]):
            _, plain = step(model, batch, seed=0)
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


def test_record_of_a_layer_on_several_levels():
    """An FPN yields a tuple."""
    layer = AUGMENTATIONS.build(dict(type='NormalizationPerturbation', at='neck', prob=1.0))
    changes = record(layer)
    value = [torch.randn(2, 8, size, size) for size in (8, 4, 2)]
    result = layer.apply(tuple(value))
    # The next call in the same pass.
    layer.apply(tuple(value))
    assert [(c.index, c.level) for c in changes] == [(0, 0), (0, 1), (0, 2)]
    for change, clean, view in zip(changes, value, result, strict=True):
        assert torch.equal(change.clean, clean)
        assert torch.equal(change.view, view)


def test_levels_and_copies_are_told_apart():
    rows, maps = torch.zeros(2, 8), torch.zeros(2, 8, 4, 6)
    changes = [
        Change(value, value, index=index, level=level)
        for index in (0, 1)
        for level, value in enumerate((maps, maps, rows))
    ]
    assert [levels(changes, c) for c in changes] == [3] * 6
    assert [(c.index, c.level) for c in deepest(changes)] == [(0, 1), (1, 1)]


def test_record_is_not_overwritten():
    """The ReLU behind the first norm works in place."""
    model = build_segmentor()
    batch = random_test_batch(model)
    augmentation = AUGMENTATIONS.build(dict(type='PAdaIN', at='backbone.bn1', prob=1.0))
    changes = record(augmentation)
    with mmfeataug.attach(model, [augmentation]):
        step(model, batch, seed=0)
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


@pytest.mark.parametrize('more', [0, 1, 2])
def test_tokens_of_a_class_have_no_place(more):
    """ViT at 224 x 224 has 14 x 14 patches behind them."""
    clean = torch.randn(1, 196 + more, 8)
    view = clean.clone()
    view[0, more + 2 * 14 + 3] += 1
    change, images = Change(clean, view), np.full((1, 224, 224, 3), 128.0)
    for figure in (draw_change(change, images, 'title'), draw_copies(change, images, '', images)):
        titles = {axes.get_title(): axes for axes in figure.axes}
        heat = next(t for t in titles if t.startswith(('mean over', '|difference| of features')))
        found = titles[heat].images[0].get_array()
        assert found.shape == (14, 14)
        assert np.unravel_index(found.argmax(), found.shape) == (2, 3)
        assert any('blue: 0' in title for title in titles)


def test_tokens_that_are_no_grid_have_no_place():
    clean = torch.randn(1, 196 + 5, 8)
    change, images = Change(clean, clean + 1), np.full((1, 224, 224, 3), 128.0)
    for figure in (draw_change(change, images, 'title'), draw_copies(change, images, '', images)):
        assert not any('blue: 0' in axes.get_title() for axes in figure.axes)


def test_tool_draws_every_kind(demo_data, tmp_path, monkeypatch):
    from PIL import Image

    (tmp_path / 'methods_of_a_user.py').write_text(METHODS)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
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
    printed = run(tool, config, *args[:4], '--corruption', 'gaussian_noise', 5, *args[4:])
    assert 'nothing left this batch as it is' in printed
    names = ['0_afan_0', '0_afan_1', '1_padain_0', '2_padain_0', '3_advstyle_0', '4_sea_0']
    # Two of the backbone's four levels lead to the loss; each copy is drawn.
    names += ['5_fma_0', *(f'6_afan_0_level_{k}' for k in (0, 1)), '7_twice_0', '7_twice_1']
    assert sorted(p.stem for p in (tmp_path / 'out').iterdir()) == [*names, 'predictions']
    # A row for the clean image, one for the corrupted.
    rows = np.array_split(np.asarray(Image.open(tmp_path / 'out/predictions.png'), float), 2)
    assert not np.allclose(rows[0][: len(rows[1])], rows[1], atol=20)
    for path in (tmp_path / 'out').iterdir():
        assert Image.open(path).width > 500
    # Before anything is drawn.
    for corruption in (('fog', 'x'), ('moonlight', 3)):
        log = run(tool, config, *args[:4], '--corruption', *corruption, *args[4:], ok=False)
        assert f'--corruption {corruption[0]} {corruption[1]}: give one of' in log
    # Only whole parts of a path are looked at.
    for name in ('nowhere.png', 'leftImg8bit.png'):
        args[1] = name
        assert f'image={name!r}: the training set has' in run(tool, config, *args, ok=False)
