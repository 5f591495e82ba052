# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Combined augmentations on the preprocessed batch."""

import pytest
import torch

import mmfeataug
from mmfeataug.methods import DistortImages
from tests.models import build_segmentor, deeplab_cfg, random_test_batch, step

pytestmark = pytest.mark.methods
INVERT = [dict(type='RandomInvert', max_val=1.0)]


def bound(**settings):
    model = build_segmentor(deeplab_cfg())
    method = DistortImages(**settings)
    method.bind(model)
    return method, model


def test_distorts_in_the_range_of_the_image():
    """Inverted grey levels, whatever the preprocessor made of them."""
    method, model = bound(distortions=INVERT)
    raw = torch.randint(0, 256, (2, 3, 16, 16)).float()
    raw[:, :, 0], raw[:, :, 1] = 0, 255
    norm = model.data_preprocessor
    preprocessed = (raw - norm.mean) / norm.std
    found = method.transform(preprocessed) * norm.std + norm.mean
    torch.testing.assert_close(found, 255 - raw, atol=1e-3, rtol=0)


def test_each_image_with_its_probability():
    method, _ = bound(distortions=INVERT, prob=0.25)
    torch.manual_seed(0)
    images = torch.linspace(-1, 1, 48).view(1, 3, 4, 4).repeat(200, 1, 1, 1)
    method._pixels.range = (0, 255)
    method._pixels._checked = True
    changed = (method.transform(images) != images).flatten(1).any(1).float().mean()
    assert 0.15 < changed < 0.35


def test_views_are_of_the_distorted_images():
    """With a view that is the clean feature, the losses are those of the distorted batch."""
    model = build_segmentor(deeplab_cfg())
    batch = random_test_batch(model, size=64)
    stock, _ = step(model, batch)
    # Not inverted: norms undo most of that.
    distortion = dict(type='RandomGamma', gamma=(4.0, 4.0), gain=(1.0, 1.0))
    distort = dict(type='DistortImages', distortions=[distortion])
    view = dict(type='AFAN', at='backbone.layer1', gamma=0.0, noise=1e-30, weight=0.5)
    with mmfeataug.attach(model, [distort], clean_weight=1.0):
        alone, _ = step(model, batch)
    with mmfeataug.attach(model, [distort, view], clean_weight=0.5):
        both, _ = step(model, batch)
    assert abs(alone['decode.loss_ce'] - stock['decode.loss_ce']) > 5e-4
    torch.testing.assert_close(
        2 * both['decode.loss_ce'], alone['decode.loss_ce'], rtol=1e-4, atol=0
    )
    total = model.parse_losses(alone)[0]
    torch.testing.assert_close(2 * both['afan.loss_0'], total, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ('settings', 'word'),
    [
        (dict(at='backbone.layer1'), "give at='inputs'"),
        (dict(prob=1.5), 'prob'),
        (dict(distortions=[dict(type='RandomRotation', degrees=9.0)]), 'moves pixels'),
    ],
)
def test_refuses(settings, word):
    with pytest.raises(ValueError, match=word):
        DistortImages(**settings)


def test_batches_of_branches_are_refused_without_a_runner_too():
    """A teacher's images would be distorted beside the student's."""
    model = build_segmentor(deeplab_cfg())
    model.data_preprocessor.data_preprocessor = torch.nn.Identity()
    with pytest.raises(TypeError, match='dict of branches'):
        mmfeataug.attach(model, [dict(type='DistortImages')])
    assert 'loss' not in vars(model)
    mmfeataug.attach(model, [dict(type='AFAN', at='backbone.layer2')]).detach()
