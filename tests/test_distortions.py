# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmfeataug.utils.distortions import DISTORTIONS, build_distortions, combined_distortion

pytestmark = pytest.mark.methods


def test_each_image_draws_its_own():
    torch.manual_seed(0)
    images = torch.rand(1, 3, 16, 20).expand(12, -1, -1, -1)
    distorted = combined_distortion(images, build_distortions(DISTORTIONS))
    assert distorted.shape == images.shape
    assert distorted.min() >= 0
    assert distorted.max() <= 1
    changes = (distorted - images).abs().mean((1, 2, 3))
    assert (changes > 0).all()
    # Two may draw the same kernel.
    assert len({round(float(c), 6) for c in changes}) > 9


def test_geometry_stays():
    """The middle of a bright spot on black stays where it was, whatever is drawn (noise aside)."""
    torch.manual_seed(0)
    image = torch.zeros(1, 3, 31, 31)
    image[..., 15:18, 9:12] = 0.8
    rows, columns = torch.meshgrid(torch.arange(31.0), torch.arange(31.0), indexing='ij')
    for config in DISTORTIONS[:4]:
        for _ in range(5):
            (out,) = combined_distortion(image, build_distortions([config]))
            light = out.sum(0)
            if config['type'] == 'ColorJiggle':
                light = light - light.min()
            middle = [float((light * place).sum() / light.sum()) for place in (rows, columns)]
            assert middle == pytest.approx([16, 10], abs=0.5), config


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
