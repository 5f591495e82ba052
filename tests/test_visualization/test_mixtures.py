# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Pictures of mixtures: what is drawn is what the network learns from."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

import mmfeataug
from mmfeataug.functional import mix
from mmfeataug.methods.targets import Mixture
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.visualization import draw_mixing, mixed_map, record_mixtures, save
from tests.models import random_test_batch, step
from tests.test_methods.test_adautomix import build
from tests.test_tools import ROOT, data_options, run

pytestmark = pytest.mark.adautomix


@pytest.mark.parametrize('kind', ['classifier', 'deeplabv3plus', 'faster-rcnn'])
@pytest.mark.parametrize('count', [2, 3])
def test_mixtures_are_drawn(kind, count, tmp_path):
    model, entry, teacher = build(kind, samples=count, lam_margin=0.0)
    inputs, samples = random_test_batch(model, images=3)
    augmentation = AUGMENTATIONS.build(entry)
    seen = record_mixtures(augmentation)
    trained = []
    with mmfeataug.attach(model, [augmentation]) as handle:
        handle.follow(teacher)
        losses = augmentation.losses

        class Watched:
            def __init__(self, network):
                self.network = network

            def __getattr__(self, name):
                return getattr(self.network, name)

            def __call__(self, given, **how):
                if how.get('loss') and 'weights' not in how:
                    trained.append((inputs, given.detach()))
                return self.network(given, **how)

        def watched(images, clean, network, generator):
            return losses(images, clean, Watched(network), generator)

        augmentation.losses = watched
        step(model, (inputs, samples))
    mixture = seen[-1]
    assert len(seen) == 2
    assert mixture.masks.shape == (3, count, 64, 64)
    assert torch.allclose(mixture.masks.sum(1), torch.ones(3, 64, 64))
    assert mixture.masks.std() > 1e-3
    images, learnt_from = trained[0]
    assert torch.equal(mix(images, mixture.index, mixture.masks), learnt_from)

    pictures = inputs.float().movedim(1, -1).numpy()
    pictures = 255 * (pictures - pictures.min()) / np.ptp(pictures)
    figure = draw_mixing(pictures, samples, mixture, rows=2)
    path = save(figure, tmp_path / 'new' / 'mixing.png')
    columns = count + 1 + (kind == 'deeplabv3plus')
    width, height = Image.open(path).size
    assert width == pytest.approx(90 * (3.2 * columns + 0.9), rel=0.2)
    assert height == pytest.approx(90 * 2 * (3.2 + 0.35), rel=0.2)


def test_label_maps_are_mixed_as_colours():
    maps = torch.tensor([[[0, 1, 255, 0]], [[1, 1, 0, 0]]])
    masks = torch.tensor([0.25, 0.75]).view(1, 2, 1, 1).expand(2, -1, 1, 4)
    mixture = Mixture(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0.25, 0.75]), masks)
    palette = [[200, 0, 0], [0, 100, 0]]
    painted = mixed_map(maps, mixture, palette)
    expected = [[50, 75, 0], [0, 100, 0], [150, 0, 0], [200, 0, 0]]
    assert painted[0, 0].tolist() == expected
    # More classes than a byte has values.
    many = [[i % 200, 0, 0] for i in range(300)]
    painted = mixed_map(maps.where(maps < 2, 299), mixture, many)
    assert painted[0, 0, 2].tolist() == [0.25 * 99, 0, 0]


CONFIG = """
_base_ = {base!r}
model = dict(
    type='mmfeataug.AugmentedModel',
    of={of!r},
    augmentations=[dict(type='mmfeataug.AdAutoMix', **{place}, samples=2, lam_margin=0.0)],
)
"""


@pytest.mark.parametrize(
    ('name', 'layout', 'of', 'compare', 'options'),
    [
        (
            'deeplabv3plus_r18_demo-cityscapes',
            'cityscapes',
            'EncoderDecoder',
            'decode_head.conv_seg',
            [
                'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
                'model.data_preprocessor.size=(64,64)',
            ],
        ),
        ('faster-rcnn_r18_fpn_demo-coco', 'coco', 'FasterRCNN', 'neck', []),
    ],
)
def test_tool(name, layout, of, compare, options, demo_data, tmp_path):
    base = str(ROOT / f'configs/demo/{name}.py')
    plain = Config.fromfile(base)
    channels = 4 * plain.model.backbone.base_channels
    place = dict(at='backbone.layer3', channels=channels, compare=compare)
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(base=base, of=of, place=place))
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    weights = MODELS.build(cfg.model).state_dict()
    # The generator that was trained is the one beside the average.
    trained = {
        f'module.{key}': 100 * value for key, value in weights.items() if 'feature_aug' in key
    }
    checkpoint = tmp_path / 'weights.pth'
    torch.save({'state_dict': weights, 'ema_state_dict': {'steps': 1, **trained}}, checkpoint)
    tool = 'analysis_tools/visualize_mixing.py'
    args = [checkpoint, '--out-dir', tmp_path / 'out', '--batch', 2, '--cfg-options']
    options = [*data_options(demo_data[layout]), *options]
    assert 'mixing.png' in run(tool, config, *args, *options)
    assert Image.open(tmp_path / 'out' / 'mixing.png').width > 500
    features = ['0', '--out', tmp_path / 'features', '--batch-size', 2, '--cfg-options']
    run('analysis_tools/visualize_features.py', config, checkpoint, *features, *options)
    assert list((tmp_path / 'features').glob('0_adautomix_*.png'))
    assert 'no AdAutoMix' in run(tool, base, *args, *options, ok=False)
    assert '2 images' in run(tool, config, *args[:-2], 1, args[-1], *options, ok=False)
