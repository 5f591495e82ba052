# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmfeataug.functional import DISTORTIONS, build_distortions, combined_distortion


def test_each_image_draws_its_own():
    images = torch.rand(1, 3, 16, 20).expand(12, -1, -1, -1)
    distorted = combined_distortion(images, build_distortions(DISTORTIONS))
    assert distorted.shape == images.shape
    assert distorted.min() >= 0
    assert distorted.max() <= 1
    changes = (distorted - images).abs().amax((1, 2, 3))
    assert (changes > 0).all()
    assert len({round(float(c), 6) for c in changes}) == 12


def test_geometry_stays():
    """A bright spot is brightest where it was, whatever is drawn (noise aside)."""
    image = torch.zeros(1, 3, 31, 31)
    image[..., 15:18, 6:9] = 0.8
    for config in DISTORTIONS[:4]:
        for _ in range(5):
            (out,) = combined_distortion(image, build_distortions([config]))
            if config['type'] == 'ColorJiggle' and out.max() == 0:
                continue
            y, x = divmod(int(out.sum(0).argmax()), 31)
            assert max(abs(y - 16), abs(x - 7)) <= 3, config


def test_same_stream_same_images():
    images, distortions = torch.rand(4, 3, 16, 16), build_distortions(DISTORTIONS)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(combined_distortion(images, distortions))
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    ('configs', 'message'),
    [
        ([dict(type='RandomHorizontalFlip')], 'RandomHorizontalFlip moves pixels'),
        ([dict(type='RandomAffine', degrees=10)], 'moves pixels'),
        ([dict(type='Sharpest')], "no 'Sharpest'"),
        ([], 'at least one'),
    ],
)
def test_bad_input(configs, message):
    with pytest.raises(ValueError, match=message):
        build_distortions(configs)
