# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 3: a replay from a tap is a full pass with the feature replaced; contract 4: both
engines agree."""

import pytest
import torch

import mmfeataug
from tests.contract.cases import ALL_TAPS, afan
from tests.models import buffers, random_test_batch, relative_difference, step


def run(build, at, side, engine='precomputed', memoize=True, **settings):
    model = build()
    batch = random_test_batch(model)
    with mmfeataug.attach(
        model, [afan(at, side, **settings)], clean_weight=0.5, engine=engine, strict=True
    ) as handle:
        if not memoize:
            for place in handle._places:
                place.memoize, place.verified = False, True
        losses, gradients = step(model, batch)
        if memoize:
            assert all(place.memoize and place.verified for place in handle._places)
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


@ALL_TAPS
def test_engines_agree(build, at, side):
    losses, gradients, state = run(build, at, side)
    graph_losses, graph_gradients, graph_state = run(build, at, side, engine='graph')
    assert losses.keys() == graph_losses.keys()
    for key in losses:
        if 'afan' in key:
            torch.testing.assert_close(
                losses[key], graph_losses[key].detach(), rtol=1e-6, atol=1e-7
            )
    assert relative_difference(gradients, graph_gradients) < 1e-6
    for name in state:
        torch.testing.assert_close(state[name], graph_state[name], msg=name)


@ALL_TAPS
def test_unmoved_view_is_the_clean_loss(build, at, side):
    """With a view that does not move (oracle 9), its loss is the clean one bit for bit. The noise
    keeps it active."""
    model = build()
    batch = random_test_batch(model)
    settings = dict(strengths=(0.0,), gamma=0.0, noise=1e-45, weight=1.0, bn='frozen')
    with mmfeataug.attach(model, [afan(at, side, **settings)], strict=True):
        losses, _ = step(model, batch)
    clean = {k: v for k, v in losses.items() if not k.startswith('afan')}
    assert torch.equal(losses['afan.loss_0'], model.parse_losses(clean)[0].detach())


@pytest.mark.parametrize(
    'settings', [dict(bn='frozen'), dict(bn='eval'), dict(steps=3, eps=0.03, random_start=True)]
)
@pytest.mark.parametrize('case', [2, 16], ids=['detector', 'segmentor'])
def test_engines_agree_on_settings(case, settings):
    from tests.contract.cases import TAPS

    build, at, side = TAPS[case]
    fast, plain = (run(build, at, side, engine, **settings) for engine in ('precomputed', 'graph'))
    assert relative_difference(fast[1], plain[1]) < 1e-6
    for name in fast[2]:
        torch.testing.assert_close(fast[2][name], plain[2][name], msg=name)


def test_several_taps_share_one_clean_pass():
    from tests.models import build_segmentor

    model = build_segmentor()
    batch = random_test_batch(model)
    both = [
        afan('backbone.layer2'),
        afan('decode_head.bottleneck'),
        afan('backbone.layer2', gamma=0.1),
    ]
    with mmfeataug.attach(model, both, clean_weight=0.2, strict=True) as handle:
        fast_losses, fast = step(model, batch)
        assert len(handle._places) == 2
    plain_model = build_segmentor()
    with mmfeataug.attach(plain_model, both, clean_weight=0.2, engine='graph'):
        plain_losses, plain = step(plain_model, batch)
    assert relative_difference(fast, plain) < 1e-6
    assert {k for k in fast_losses if 'afan' in k and 'loss' in k} == {
        f'{name}.loss_{i}' for name in ('afan', 'afan2', 'afan3') for i in (0, 1)
    }
    assert fast_losses.keys() == plain_losses.keys()


class TestPrefix:
    def test_view_losses_train_only_what_follows(self):
        """Oracle 10, detection: without the clean loss nothing before the tap has a gradient."""
        from tests.models import build_detector

        ours, clean = build_detector(), build_detector()
        batch = random_test_batch(ours)
        with mmfeataug.attach(ours, [afan('backbone.layer2')], clean_weight=1.0):
            _, both = step(ours, batch)
        _, alone = step(clean, batch)
        for name in both:
            before = name.startswith(
                ('backbone.conv1', 'backbone.bn1', 'backbone.layer1', 'backbone.layer2')
            )
            if both[name] is None or name.endswith('bn2.weight'):
                continue
            assert torch.equal(both[name], alone[name]) == before or not alone[name].any(), name

    def test_live_prefix_trains_stem_through_the_skip(self):
        """Oracle 10, DeepLabV3+: layer1 learns from views through the low-level skip, if asked
        to."""
        from tests.models import build_segmentor

        results = {}
        for live in (False, True):
            model = build_segmentor()
            batch = random_test_batch(model)
            with mmfeataug.attach(
                model, [afan('backbone.layer3', live_prefix=live)], engine='graph', strict=True
            ):
                results[live] = step(model, batch)[1]
        stock = build_segmentor()
        _, clean = step(stock, random_test_batch(stock))
        name = 'backbone.conv1.weight'
        torch.testing.assert_close(results[False][name], clean[name])
        assert not torch.allclose(results[True][name], clean[name])
        # layer2 lies between skip and tap: nothing of the views reaches it either way.
        name = 'backbone.layer2.0.conv1.weight'
        torch.testing.assert_close(results[True][name], clean[name])

    def test_live_prefix_of_one_tap_is_not_that_of_another(self):
        from tests.models import build_segmentor

        gradients = []
        for weight in (0.0, 0.5):
            model = build_segmentor()
            batch = random_test_batch(model)
            live = afan('backbone.layer3', live_prefix=True, weight=1e-9)
            other = afan('backbone.layer4', weight=weight, bn='eval')
            with mmfeataug.attach(model, [live, other], engine='graph'):
                gradients.append(step(model, batch)[1])
        name = 'backbone.conv1.weight'
        torch.testing.assert_close(gradients[1][name], gradients[0][name])

    def test_members_of_one_place_agree_on_live_prefix(self):
        from tests.models import build_segmentor

        two = [afan('backbone.layer3', live_prefix=live) for live in (True, False)]
        with pytest.raises(ValueError, match=r"live_prefix differs .* at 'backbone\.layer3'"):
            mmfeataug.attach(build_segmentor(), two, engine='graph')

    def test_live_prefix_needs_the_graph_engine(self):
        from tests.models import build_segmentor

        with pytest.raises(
            ValueError, match=r"live_prefix=True at 'backbone\.layer3' needs engine='graph'"
        ):
            mmfeataug.attach(build_segmentor(), [afan('backbone.layer3', live_prefix=True)])


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
    with mmfeataug.attach(model, [afan(at, **settings)], strict=True):
        for count in (3, 40):
            for sample in samples:
                corner = torch.rand(count, 2) * 40
                boxes = torch.cat([corner, corner + 8 + torch.rand(count, 2) * 15], 1)
                sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.arange(count) % 3)
            losses, _ = step(model, (inputs, samples))
            clean = {k: v for k, v in losses.items() if not k.startswith('afan')}
            assert torch.equal(losses['afan.loss_0'], model.parse_losses(clean)[0].detach()), count


@pytest.mark.parametrize('engine', ['precomputed', 'graph'])
def test_coordinates_are_no_features(engine):
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
    with mmfeataug.attach(model, [afan(at, 'input', **settings)], engine=engine, strict=True):
        step(model, batch)
    assert len(rois) > 1
    assert all(torch.equal(r, rois[0]) for r in rois)
