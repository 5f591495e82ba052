# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 3: a replay from a tap is a full pass with the feature replaced."""

import pytest
import torch

import mmfeataug
from tests.contract.cases import ALL_TAPS, afan
from tests.models import buffers, build_segmentor, random_test_batch, relative_difference, step


def run(build, at, side, memoize=True, **settings):
    model = build()
    batch = random_test_batch(model)
    with mmfeataug.attach(
        model, [afan(at, side, **settings)], clean_weight=0.5, strict=True
    ) as handle:
        if not memoize:
            for tap in handle.taps:
                tap.memoize, tap.verified = False, True
        losses, gradients = step(model, batch)
        if memoize:
            assert all(tap.memoize and tap.verified for tap in handle.taps)
    return losses, gradients, buffers(model)


@ALL_TAPS
def test_replay_equals_full_rerun(build, at, side):
    losses, gradients, state = run(build, at, side)
    full_losses, full_gradients, full_state = run(build, at, side, memoize=False)
    for key in losses:
        if 'afan' in key:
            assert torch.equal(losses[key], full_losses[key]), key
    assert relative_difference(gradients, full_gradients) < 1e-6
    for name in state:
        torch.testing.assert_close(state[name], full_state[name], msg=name)


@pytest.mark.parametrize('learn', ['skips', 'network'])
def test_full_rerun_teaches_the_same(learn):
    at = 'backbone.layer3'
    _, gradients, _ = run(build_segmentor, at, 'output', learn=learn)
    _, full_gradients, _ = run(build_segmentor, at, 'output', memoize=False, learn=learn)
    assert relative_difference(gradients, full_gradients, floor=1e-3) < 1e-5


@pytest.mark.parametrize(
    'at',
    ['roi_head.bbox_roi_extractor', 'roi_head.bbox_head.shared_fcs.1', 'roi_head.bbox_head.fc_cls'],
)
def test_roi_samplers_draw_the_same_regions(at):
    """Samplers draw only when there are more candidates than places: few boxes first, many
    later."""
    from mmengine.structures import InstanceData

    from tests.models import build_detector, faster_rcnn_cfg

    model = build_detector(faster_rcnn_cfg(rois=16))
    inputs, samples = random_test_batch(model)
    settings = dict(strengths=(0.0,), gamma=0.0, noise=1e-45, weight=1.0, bn='frozen')
    with mmfeataug.attach(model, [afan(at, **settings)], clean_weight=1.0, strict=True):
        for count in (3, 40):
            for sample in samples:
                corner = torch.rand(count, 2) * 40
                boxes = torch.cat([corner, corner + 8 + torch.rand(count, 2) * 15], 1)
                sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.arange(count) % 3)
            losses, _ = step(model, (inputs, samples))
            clean = {k: v for k, v in losses.items() if not k.startswith('afan')}
            assert torch.equal(losses['afan.loss_0'], model.parse_losses(clean)[0].detach()), count


def test_coordinates_are_no_features():
    """RoI coordinates are floats that enter the extractor beside the features; no method may move
    them."""
    from tests.models import build_detector

    model = build_detector()
    batch = random_test_batch(model)
    rois = []
    hook = lambda _, args: rois.append(args[1].clone())  # noqa: E731
    model.roi_head.bbox_roi_extractor.roi_layers[0].register_forward_pre_hook(hook)
    settings = dict(noise=0.5, gamma=0.1, strengths=(1.0,), weight=0.5)
    at = 'roi_head.bbox_roi_extractor'
    with mmfeataug.attach(model, [afan(at, 'input', **settings)], clean_weight=1.0, strict=True):
        step(model, batch)
    assert len(rois) > 1
    assert all(torch.equal(r, rois[0]) for r in rois)
