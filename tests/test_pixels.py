# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Range and channels of images, behind whatever normalises them."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.transforms import Normalize
from torch import nn

from mmfeataug.datasets import Corrupt, random_batch
from mmfeataug.evaluation import PGD
from mmfeataug.evaluation.attacks.base import Images
from mmfeataug.evaluation.attacks.geometry import Region
from mmfeataug.methods import AFAN, FMA
from mmfeataug.utils.distortions import build_distortions, refuse_channels
from mmfeataug.utils.pixels import PixelScale, channels_of, learn_pipeline, range_of
from mmfeataug.visualization import shown
from tests.models import build_segmentor, deeplab_cfg

MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)


class Model(nn.Module):
    """With a data preprocessor that normalises, or not."""

    def __init__(self, mean=None, std=None, channels=3, nested=False, **preprocessor):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(channels, 2, 3))
        self.data_preprocessor = SimpleNamespace(
            mean=None if mean is None else torch.tensor(mean).reshape(-1, 1, 1),
            std=None if std is None else torch.tensor(std).reshape(-1, 1, 1),
            **preprocessor,
        )
        if nested:
            self.data_preprocessor = SimpleNamespace(data_preprocessor=self.data_preprocessor)


def file(top, dtype=np.float32, channels=3):
    """An image of all values from 0 to ``top``."""
    ramp = np.linspace(0, top, 32 * 40 * channels).reshape(32, 40, channels)
    return np.random.default_rng(0).permuted(ramp.round() if top > 1 else ramp).astype(dtype)


def seen(model, image, steps=()):
    """The image as the network sees it, ``(1, C, H, W)``."""
    results = dict(img=image.astype(np.float32))
    for step in steps:
        results = step(results)
    images = torch.from_numpy(results['img']).movedim(-1, 0)[None]
    part = model.data_preprocessor
    part = getattr(part, 'data_preprocessor', part)
    return images if part.mean is None else (images - part.mean) / part.std


@pytest.mark.parametrize(
    ('top', 'settings', 'steps'),
    [
        (255, dict(mean=MEAN, std=STD), ()),
        (255, dict(mean=MEAN, std=STD, nested=True), ()),
        (255, {}, ()),
        (255, {}, [Normalize(MEAN, STD, to_rgb=False)]),
        (255, {}, [Normalize([0.0] * 3, [255.0] * 3, to_rgb=False)]),
        (255, dict(mean=[0.5] * 3, std=[0.5] * 3), [Normalize([0.0] * 3, [255.0] * 3, False)]),
        (1, {}, ()),
        (1, dict(mean=[0.5] * 3, std=[0.2] * 3), ()),
        (65535, dict(mean=[18000.0] * 3, std=[6000.0] * 3), ()),
        (255, dict(mean=[110.0], std=[50.0], channels=1), ()),
        (255, dict(mean=[110.0], std=[50.0], channels=4), ()),
    ],
)
def test_levels_go_from_0_to_255(top, settings, steps):
    model = Model(**settings)
    image = file(top, channels=settings.get('channels', 3))
    learn_pipeline(model, steps)
    scale, images = PixelScale(model), seen(model, image, steps)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        levels = scale.raw(images)
    expected = torch.from_numpy(image).movedim(-1, 0)[None] * (255 / top)
    torch.testing.assert_close(levels, expected, atol=0.02, rtol=1e-4)
    torch.testing.assert_close(scale.preprocessed(levels), images, atol=1e-4, rtol=1e-3)
    moved = scale.preprocessed(levels + 1)
    torch.testing.assert_close(
        moved - images, scale.level(images) + 0 * images, atol=1e-3, rtol=0.1
    )


@pytest.mark.parametrize(('top', 'said'), [(255, False), (1, True), (65535, True)])
def test_another_range_is_said_once(top, said):
    model = Model()
    scale, images = PixelScale(model), seen(model, file(top))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        scale.raw(images)
        scale.raw(images)
    assert [f'0 to {top}' in str(w.message) for w in caught] == [True] * said


@pytest.mark.parametrize('image', [file(1) * 4 - 2, file(1) * 1000, -file(255)])
def test_an_unknown_range_is_refused(image):
    with pytest.raises(ValueError, match=r'image_range=\(smallest, largest\)'):
        PixelScale(Model()).raw(seen(Model(), image))


def test_a_range_that_is_told():
    images = seen(Model(), file(1) * 2 - 1)
    scale = PixelScale(Model(), (-1.0, 1.0))
    assert scale.raw(images).min() == 0
    assert scale.raw(images).max() == 255
    assert scale.level(images) == pytest.approx(2 / 255)
    with pytest.raises(ValueError, match=r'image_range=\(0.0, 1.0\): the first images hold'):
        PixelScale(Model(), (0.0, 1.0)).raw(images)
    with pytest.raises(ValueError, match='smallest and largest'):
        PixelScale(Model(), (1.0, 1.0))


def test_photometric_distortion_does_not_matter():
    """mmdet's leaves the range by a half."""
    images = seen(Model(), file(255) * 1.5 - 30)
    assert PixelScale(Model()).raw(images).equal(images)


@pytest.mark.parametrize('top', [2, 10])
def test_dark_images(top):
    """Their levels are whole; a range that is told holds for them, too."""
    model = Model(MEAN, STD)
    images = seen(model, file(255) * 0 + file(top))
    expected = torch.from_numpy(file(top)).movedim(-1, 0)[None]
    for scale in (PixelScale(model), PixelScale(model, (0.0, 255.0))):
        torch.testing.assert_close(scale.raw(images), expected, atol=0.02, rtol=0)
    assert range_of(file(top) + 0.3) == (0, 255)


def test_a_black_batch_tells_nothing():
    scale = PixelScale(Model())
    assert scale.raw(torch.zeros(1, 3, 8, 8)).eq(0).all()
    with pytest.warns(UserWarning, match='0 to 1 '):
        assert scale.raw(seen(Model(), file(1))).max() == 255


@pytest.mark.parametrize(
    ('model', 'channels'),
    [
        (Model(MEAN, STD), 3),
        (Model([1.0], [1.0], channels=1), 1),
        (Model([1.0], [1.0], channels=4), 4),
        (Model(channels=12), 12),
        (Model([1.0] * 5, [1.0] * 5, channels=5, nested=True), 5),
        (nn.Linear(2, 2), 3),
    ],
)
def test_channels(model, channels):
    assert channels_of(model) == channels


def test_focus_takes_four_neighbours():
    class Focus(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(12, 2, 3)

    assert channels_of(nn.Sequential(Focus())) == 3


def grey_segmentor(channels=1):
    cfg = deeplab_cfg()
    cfg['data_preprocessor'].update(mean=[110.0], std=[50.0], bgr_to_rgb=False)
    cfg['backbone']['in_channels'] = channels
    return build_segmentor(cfg)


@pytest.mark.parametrize('channels', [1, 4])
def test_random_batches(channels):
    model = grey_segmentor(channels)
    inputs, samples = random_batch(model, (64, 64))
    assert inputs.shape == (2, channels, 64, 64)
    model.loss(inputs, samples)


@pytest.mark.parametrize('channels', [1, 4])
def test_what_distortions_take_is_known_before_training(channels):
    model = grey_segmentor(channels)
    with pytest.raises(ValueError, match=f'ColorJiggle cannot distort images of {channels}.*Gamma'):
        FMA(at='backbone.layer3').bind(model)
    noise = [dict(type='RandomGaussianNoise', std=0.1)]
    method = FMA(at='backbone.layer3', distortions=noise)
    import mmfeataug

    inputs, samples = random_batch(model, (64, 64))
    with mmfeataug.attach(model, [method]):
        assert float(model.loss(inputs, samples)['fma.loss_0']) > 0


def test_a_step_in_grey_levels():
    """The same share of the range, whatever that is."""
    for top in (255.0, 65535.0, 1.0):
        model, image = Model(), file(top)
        inputs = seen(model, image)
        method = AFAN(at='inputs', unit='pixel', gamma=2.0, image_range=(0.0, top))
        method.bind(model)
        signs = torch.where(inputs > top / 2, -1.0, 1.0)
        (view,) = method.views([inputs], [signs], None)
        moved = (view.features[0] - inputs) / top * 255
        torch.testing.assert_close(moved, 2 * signs, atol=0.02, rtol=0)
        attack = PGD(eps=2.0, steps=1, step_size=2.0, random_start=False)
        attack.image_range = (0.0, top)
        attack.images = Images(['a'], [Region(0, 0, *inputs.shape[-2:])], 0)
        attack.bind(model)
        (view,) = attack.views([inputs], [signs], None)
        torch.testing.assert_close(
            (view.features[0] - inputs) / top * 255, 2 * signs, atol=0.02, rtol=0
        )


GREY = np.zeros((48, 64), np.uint8)
GREY[10:20, 40:60] = 200


@pytest.mark.parametrize('image', [GREY, GREY[..., None]])
def test_corrupted_grey_images(image):
    step = Corrupt('gaussian_noise', 3)
    found = step(dict(img=image, img_path='a.png'))['img']
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    coloured = step(dict(img=np.dstack([GREY] * 3), img_path='a.png'))['img']
    assert (found.squeeze() == coloured[..., 0]).all()


def test_corruptions_in_16_bits():
    small = file(255, np.uint8)
    step = Corrupt('gaussian_noise', 3)
    expected = step(dict(img=small, img_path='a.png'))['img']
    found = step(dict(img=small.astype(np.uint16) * 257, img_path='a.png'))['img']
    assert found.dtype == np.uint16
    assert (found == expected.astype(np.uint16) * 257).all()


@pytest.mark.parametrize(
    ('dtype', 'top'), [(np.float32, 1), (np.float32, 255), (np.uint16, 4095), (np.int16, 1000)]
)
def test_levels_are_rounded(monkeypatch, dtype, top):
    """Cut off, they were half a level darker."""
    monkeypatch.setattr('mmfeataug.datasets.corrupt.corrupt_image', lambda image, *_: image)
    image = np.linspace(0, top, 32 * 40 * 3).reshape(32, 40, 3).astype(dtype)
    found = Corrupt('fog', 1, image_range=(0, top))(dict(img=image, img_path='a.png'))['img']
    assert found.dtype == dtype
    away = (found.astype(np.float64) - image) / top * 255
    assert np.abs(away).max() <= 0.5 + 255 / top * (dtype in (np.uint16, np.int16))
    assert abs(away.mean()) < 0.1


def test_wide_blurs_are_no_fault_of_the_channels():
    blur = dict(type='RandomGaussianBlur', kernel_size=(35, 35), sigma=(2.0, 5.0))
    refuse_channels(build_distortions([blur]), 3)


def test_corrupt_refuses_many_bands():
    with pytest.raises(ValueError, match='needs 1 or 3 channels'):
        Corrupt('fog', 1)(dict(img=np.dstack([GREY] * 4), img_path='a.png'))


@pytest.mark.parametrize('image', [file(1), file(1) * 4 - 2, file(1) * 1000])
def test_floating_point_of_another_range_has_to_be_told(image):
    with pytest.raises(ValueError, match='image_range'):
        range_of(image)
    assert range_of(image, (-2.0, 2.0)) == (-2.0, 2.0)


@pytest.mark.parametrize(
    ('image', 'top'),
    [(file(255), 255), (file(2), 255), (GREY, 255), (file(40000, np.uint16), 65535)],
)
def test_range_of_a_file(image, top):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert range_of(image) == (0, top)


@pytest.mark.parametrize(('largest', 'bits'), [(9, 8), (1000, 10), (4095, 12), (4096, 13)])
def test_files_that_hardly_use_16_bits(largest, bits):
    image = file(largest, np.uint16)
    image.flat[0] = largest
    with pytest.warns(UserWarning, match=rf'uses {bits} of its 16.*image_range=\(0, {2**bits - 1}'):
        assert range_of(image) == (0, 65535)
    assert range_of(image, (0, 4095)) == (0, 4095)


def test_pictures():
    """Grey as grey, of many bands the colours, of another range from black to white."""
    bgr = file(255)
    for model, image, expected in (
        (Model(), bgr, bgr[..., ::-1]),
        (Model(_channel_conversion=True), bgr, bgr),
        # Of mmsegmentation.
        (Model(channel_conversion=True), bgr, bgr),
        (Model(channels=1), bgr[..., :1], bgr[..., :1].repeat(3, -1)),
        (Model(channels=4), np.dstack([bgr, bgr]), bgr[..., ::-1]),
        (Model(), bgr / 255, bgr[..., ::-1]),
        (Model(), bgr / 50 - 2, bgr[..., ::-1]),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            (found,) = shown(model, ['LoadImageFromFile'])(seen(model, image))
        np.testing.assert_allclose(found, expected, atol=0.05)
    turned = Model()
    learn_pipeline(turned, [Normalize([0.0] * 3, [1.0] * 3, to_rgb=True)])
    (found,) = shown(turned, ['LoadImageFromFile'])(seen(turned, bgr))
    np.testing.assert_allclose(found, bgr, atol=0.01)
