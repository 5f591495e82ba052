# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Pictures of what augmentations do: what is drawn is what the engine trains on."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import mmfeataug
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.visualization import record
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
    run(tool, config, *args)
    names = ['0_afan_0', '0_afan_1', '1_padain_0', '2_advstyle_0', '3_sea_0', '4_fma_0']
    assert sorted(p.stem for p in (tmp_path / 'out').iterdir()) == names
    for path in (tmp_path / 'out').iterdir():
        assert Image.open(path).width > 500
    args[1] = 'nowhere.png'
    assert "image='nowhere.png'" in run(tool, config, *args, ok=False)
