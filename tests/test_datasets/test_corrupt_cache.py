# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corrupted images that are kept: what Corrupt makes, to the bit; nothing else is taken for it."""

import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from mmfeataug.datasets import Corrupt, corrupt_images
from mmfeataug.utils.files import write_at_once

pytest.importorskip('imagecorruptions')
KINDS = {
    'colour': (np.uint8, (40, 50, 3)),
    'grey': (np.uint8, (40, 50)),
    'grey-1': (np.uint8, (40, 50, 1)),
    '16-bit': (np.uint16, (40, 50, 3)),
    'float': (np.float32, (40, 50, 3)),
}


def image_of(kind='colour', seed=0):
    dtype, shape = KINDS[kind]
    most = np.iinfo(dtype).max if dtype != np.float32 else 255
    return (np.random.default_rng(seed).random(shape) * most).astype(dtype)


def corrupted(image, cache, name='a/0001.jpg', **settings):
    step = Corrupt('gaussian_noise', 3, cache=None if cache is None else str(cache), **settings)
    return step(dict(img=image, img_path=name))['img']


def files(folder):
    return sorted(path for path in folder.rglob('*') if path.is_file())


@pytest.mark.parametrize('rgb', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_the_same_image(kind, rgb, tmp_path, monkeypatch):
    image = image_of(kind)
    expected = corrupted(image, None, rgb=rgb)
    found = [corrupted(image, tmp_path, rgb=rgb)]
    # The second is read.
    monkeypatch.setattr(sys.modules['mmfeataug.datasets.corrupt'], 'corrupt_image', None)
    found.append(corrupted(image, tmp_path, rgb=rgb))
    for one in found:
        assert (one.dtype, one.shape) == (image.dtype, image.shape)
        np.testing.assert_array_equal(one, expected)
        assert one.flags.c_contiguous
        assert one.flags.writeable
    (path,) = files(tmp_path)
    assert path.parent == tmp_path / 'gaussian_noise' / '3'
    assert path.name.startswith('0001-')
    assert path.suffix == ('.npy' if kind == 'float' else '.png')
    if kind == 'colour':
        # Viewers show the colours as they are; OpenCV reads BGR.
        order = slice(None, None, -1 if rgb else None)
        np.testing.assert_array_equal(cv2.imread(str(path)), expected[..., order])


def test_what_differs_has_a_file_of_its_own(tmp_path, monkeypatch):
    image = image_of()
    cases = [
        (image, {}),
        (image_of(seed=1), {}),
        (image, dict(rgb=True)),
        (image, dict(image_range=(0, 300))),
        (image, dict(name='a/0002.jpg')),
        (image.astype(np.float32), {}),
    ]
    for count, (one, settings) in enumerate(cases, 1):
        found = corrupted(one, tmp_path, **settings)
        np.testing.assert_array_equal(found, corrupted(one, None, **settings))
        assert len(files(tmp_path)) == count
    corrupted(image, tmp_path, name='elsewhere/0001.jpg')
    assert len(files(tmp_path)) == len(cases)
    module = sys.modules['mmfeataug.datasets.corrupt']
    monkeypatch.setattr(module, 'all_versions', lambda: {'kornia': '0.1'})
    corrupted(image, tmp_path)
    assert len(files(tmp_path)) == len(cases) + 1


@pytest.mark.parametrize('kind', ['colour', 'float'])
def test_a_damaged_file_is_made_anew(kind, tmp_path):
    image = image_of(kind)
    expected = corrupted(image, tmp_path)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    parts = whole[:100], whole[: len(whole) // 2], whole[:-20]
    for content in (b'', *parts, b'no image', whole[:10] + b'(' * 60, b'PK\3\4' + whole):
        path.write_bytes(content)
        np.testing.assert_array_equal(corrupted(image, tmp_path), expected)
        assert files(tmp_path) == [path]
        assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written(tmp_path):
    """A cache is no reason to stop."""
    (tmp_path / 'file').write_text('')
    with pytest.warns(UserWarning, match=r"cache='.*file': corrupted images cannot be kept"):
        found = corrupted(image_of(), tmp_path / 'file')
    np.testing.assert_array_equal(found, corrupted(image_of(), None))


def test_many_write_one_file(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_at_once(tmp_path / 'one', b'x' * 10_000), range(200)))
    assert files(tmp_path) == [tmp_path / 'one']


def test_configs_hand_it_on(tmp_path):
    pipeline = [dict(type='LoadImageFromFile')]
    for cache in (None, tmp_path):
        loader = dict(dataset=dict(type='CocoDataset', pipeline=pipeline))
        corrupt_images(loader, 'mmdet', 'fog', 2, cache)
        step = dict(type='mmfeataug.Corrupt', corruption='fog', severity=2)
        if cache:
            step['cache'] = str(tmp_path)
        assert loader['dataset']['pipeline'] == [*pipeline, step]
