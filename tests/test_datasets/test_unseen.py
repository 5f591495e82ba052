# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corruptions that nothing is trained near: values, draws, severities, and pixels that stay."""

import itertools
import random
import sys
from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from mmfeataug.datasets import Corrupt, corrupt_image
from mmfeataug.datasets.unseen import SETTINGS
from mmfeataug.utils.corruptions import ALL, BENCHMARK, FAMILIES
from mmfeataug.utils.distortions import DISTORTIONS

pytest.importorskip('imagecorruptions')
pytest.importorskip('kornia')
UNSEEN = FAMILIES['unseen']


def scene(seed=0):
    """Blocks and waves, darker and lighter, RGB of 72 x 96 pixels."""
    draw = np.random.RandomState(seed)
    y, x = np.mgrid[:72, :96]
    waves = [110 + 40 * np.sin(x / a + y / b) for a, b in draw.uniform(3, 9, (3, 2))]
    image = np.stack(waves, axis=-1)
    for top, left in draw.randint(4, 50, (6, 2)):
        image[top : top + 14, left : left + 18] = draw.randint(30, 226, 3)
    return image.astype(np.uint8)


def test_names():
    assert tuple(SETTINGS) == UNSEEN
    assert {len(by_severity) for *_, by_severity in SETTINGS.values()} == {5}
    assert len(set(ALL)) == len(ALL) == len(BENCHMARK) + 4 + len(UNSEEN)


@pytest.mark.parametrize('severity', [1, 5])
@pytest.mark.parametrize('name', UNSEEN)
def test_images_of_all_kinds(name, severity):
    image = scene()
    corrupt = Corrupt(name, severity)

    def run(image):
        given = image.copy()
        corrupted = corrupt(dict(img=image, img_path='1.png'))['img']
        np.testing.assert_array_equal(image, given)
        assert (corrupted.shape, corrupted.dtype) == (image.shape, image.dtype)
        assert corrupted.flags.c_contiguous
        assert not np.array_equal(corrupted, image)
        return corrupted

    colour = run(image)
    rgb = Corrupt(name, severity, rgb=True)(dict(img=image[..., ::-1], img_path='1.png'))['img']
    np.testing.assert_array_equal(rgb[..., ::-1], colour)
    run(image[..., 1])
    run(image[..., :1])
    wide = run(image.astype(np.uint16) * 257)
    assert np.abs(wide / 257 - colour).max() < 1


@pytest.mark.parametrize('name', UNSEEN)
def test_smallest_and_odd_sizes(name):
    for shape in ((32, 32), (32, 257), (101, 33)):
        image = cv2.resize(scene(), shape[::-1])
        for severity in (1, 5):
            assert corrupt_image(image, name, severity, 3).shape == (*shape, 3)


@pytest.mark.parametrize('name', UNSEEN)
def test_a_function_of_image_and_seed(name):
    image = scene()
    first = corrupt_image(image, name, 3, 11)
    threads = cv2.getNumThreads(), torch.get_num_threads()
    try:
        cv2.setNumThreads(4)
        torch.set_num_threads(3)
        np.testing.assert_array_equal(corrupt_image(image, name, 3, 11), first)
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
    others = (corrupt_image(image, name, 3, seed) for seed in range(12))
    assert any(not np.array_equal(other, first) for other in others)


@pytest.mark.parametrize('name', UNSEEN)
def test_global_streams_stay(name):
    def draws():
        return random.random(), np.random.random(), torch.rand(()).item()

    def seed():
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)

    seed()
    expected = draws()
    seed()
    corrupt_image(scene(), name, 2, 1)
    assert draws() == expected


def test_no_method_here_uses_them():
    kinds = {kind for kind, *_ in SETTINGS.values()}
    assert not kinds & {d['type'] for d in DISTORTIONS}
    # What mmpretrain's AutoAugment and AugMix policies change.
    policies = ('AutoContrast', 'Equalize', 'Posterize', 'Solarize', 'Sharpness', 'Brightness')
    assert not kinds & {f'Random{name}' for name in (*policies, 'Contrast', 'Saturation', 'Hue')}


@pytest.mark.parametrize('name', UNSEEN)
def test_severity_is_the_distance_to_the_clean_image(name):
    cases = [(scene(k), k) for k in range(6)]
    distances = [
        np.mean([np.abs(corrupt_image(x, name, severity, k) - x.astype(float)) for x, k in cases])
        for severity in range(1, 6)
    ]
    assert all(a < b for a, b in itertools.pairwise(distances)), distances
    assert distances[0] > 0.3


def best_shift(clean, moved):
    """By how many pixels edges have to be moved to fit those of the clean image."""
    edges, others = (cv2.Laplacian(x.mean(2).astype(np.float32), -1) for x in (clean, moved))
    shifts = itertools.product(range(-3, 4), repeat=2)
    return max(shifts, key=lambda shift: (np.roll(others, shift, (0, 1)) * edges).sum())


@pytest.mark.parametrize('name', UNSEEN)
def test_pixels_stay_where_they_are(name):
    image = np.full((72, 96, 3), (90, 80, 110), np.uint8)
    image[12:64, 20:84] = 190, 160, 140
    shifts = [best_shift(image, corrupt_image(image, name, 5, seed)) for seed in range(9)]
    assert Counter(shifts).most_common(1)[0][0] == (0, 0)
    moved = np.roll(corrupt_image(image, name, 5, 1), (-1, 2), (0, 1))
    assert best_shift(image, moved) != (0, 0)


def test_lights_go_either_way():
    flat = np.full((40, 60, 3), 128, np.uint8)
    for name in ('plasma_brightness', 'linear_illumination', 'gaussian_illumination'):
        means = [corrupt_image(flat, name, 3, seed).mean() for seed in range(10)]
        assert min(means) < 128 < max(means)


def test_missing_kornia(monkeypatch):
    monkeypatch.setitem(sys.modules, 'kornia', None)
    with pytest.raises(ImportError, match=r'kornia.*pip install mmfeataug\[robustness\]'):
        Corrupt('planckian_jitter')
    Corrupt('planckian_jitter', 0)
    Corrupt('fog')
