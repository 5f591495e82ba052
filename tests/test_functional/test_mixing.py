# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmfeataug.functional import mean_inside, mix, weighted_cosine


def test_mix_takes_each_part_with_its_mask():
    x = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 4, 4)
    index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    masks = torch.zeros(3, 2, 4, 4)
    masks[:, 0, :, :2], masks[:, 1, :, 2:] = 1, 1
    mixed = mix(x, index, masks)
    assert mixed.shape == x.shape
    assert mixed[0, 0, 0].tolist() == [0, 0, 1, 1]
    assert mixed[2, 1, 3].tolist() == [2, 2, 0, 0]


def test_equal_masks_give_the_mean_of_the_parts():
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    index = torch.stack([torch.tensor(p) for p in ([0, 1, 2], [1, 2, 0], [2, 0, 1])])
    mixed = mix(x, index, torch.full((3, 3, 1, 1), 1 / 3, dtype=torch.float64))
    assert torch.allclose(mixed, x.mean(0).expand_as(mixed))


def test_mean_inside_is_exact_on_pixel_corners_and_never_empty():
    mask = torch.zeros(1, 4, 6)
    mask[0, :2, :3] = 1
    boxes = torch.tensor([[0, 0, 3, 2], [0, 0, 6, 4], [3, 2, 6, 4], [2, 1, 4, 3.0], [5, 3, 5, 3]])
    assert mean_inside(mask, [boxes])[0].tolist() == [1, 0.25, 0, 0.25, 0]
    outside = torch.tensor([[-9.0, -9, 99, 99]])
    assert mean_inside(mask, [outside])[0].tolist() == [0.25]
    assert mean_inside(mask, [boxes[:0]])[0].shape == (0,)


@pytest.mark.parametrize('spatial', [False, True])
def test_weighted_cosine(spatial):
    a, b = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]])
    shares = torch.tensor([[0.75, 0.25]])
    if spatial:
        a, b, shares = (t[..., None, None].expand(*t.shape, 2, 3) for t in (a, b, shares))
    assert weighted_cosine(a, [a, b], shares).item() == pytest.approx(0.75)
    assert weighted_cosine(a, [a, a], shares).item() == pytest.approx(1.0)


def test_weighted_cosine_of_tokens():
    a, b = torch.tensor([[[1.0, 0], [0, 1]]]), torch.tensor([[[0.0, 1], [0, 1]]])
    # At one of two positions the second part is as the mixture.
    found = weighted_cosine(a, [a, b], torch.tensor([[0.75, 0.25]]))
    assert found.item() == pytest.approx(0.75 + 0.25 * 0.5)
