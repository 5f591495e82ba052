# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""FMA and stability training on real models."""

import pytest
import torch
from mmengine.runner import save_checkpoint

import mmfeataug
from mmfeataug.methods import FMA, StabilityTraining
from mmfeataug.utils.pixels import PixelScale
from tests.models import (
    build_detector,
    build_segmentor,
    deeplab_cfg,
    faster_rcnn_cfg,
    random_test_batch,
    relative_difference,
    step,
)

pytestmark = pytest.mark.methods
NOTHING = [dict(type='RandomGaussianNoise', std=0.0)]
NOISE = [dict(type='RandomGaussianNoise', std=0.1)]
ROI_LOGITS = dict(at='roi_head.bbox_head.fc_cls', hold=('rpn_head',))


def term(model, config, size=64):
    with mmfeataug.attach(model, [config], strict=True):
        losses, gradients = step(model, random_test_batch(model, size=size))
    return float(next(v for k, v in losses.items() if k.endswith('.loss_0'))), gradients


def norms_at_rest(model):
    """Running statistics are updated by the clean pass; without that both passes are alike."""
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.eval()
    return model


def test_a_copy_without_distortion_is_the_clean_batch():
    """Same proposals, same dropout, same batch statistics: only the rounding of the way to grey
    levels and back is left. With noise there is a difference."""
    cfg = faster_rcnn_cfg()
    # The random batch lies within 0 to 255 grey levels then.
    cfg['data_preprocessor'].update(mean=[127.0] * 3, std=[20.0] * 3)
    settings = dict(type='StabilityTraining', **ROI_LOGITS)
    value, _ = term(build_detector(cfg), {**settings, 'distortions': NOTHING})
    noisy, _ = term(build_detector(cfg), {**settings, 'distortions': NOISE})
    assert value < 1e-3 * noisy
    assert noisy > 0


def test_runs_no_further_than_it_must():
    model = build_segmentor()
    calls = []
    hooks = [
        part.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, part in (('backbone', model.backbone), ('head', model.decode_head.conv_seg))
    ]
    for task_weight, heads in ((0.0, 1), (0.5, 2)):
        calls.clear()
        term(model, dict(type='FMA', task_weight=task_weight))
        assert calls.count('head') == heads
    for hook in hooks:
        hook.remove()


def test_task_loss_counts_as_much_as_is_said():
    values = [
        term(build_segmentor(), dict(type='FMA', task_weight=weight))[0]
        for weight in (0.0, 0.5, 1.0)
    ]
    assert values[2] - values[1] == pytest.approx(values[1] - values[0], rel=1e-3)
    assert values[1] - values[0] > 0.5


class TestTargets:
    def test_frozen(self, tmp_path):
        """The teacher's weights decide: its own checkpoint gives what the clean pass gives, another
        one something else; and nothing of it stays in the model."""
        model = norms_at_rest(build_segmentor())
        save_checkpoint({'state_dict': model.state_dict()}, str(tmp_path / 'own.pth'))
        other = build_segmentor(seed=1)
        save_checkpoint({'state_dict': other.state_dict()}, str(tmp_path / 'other.pth'))
        config = dict(type='FMA', distortions=NOISE)
        keys = list(model.state_dict())
        detached, gradients = term(model, config)
        own, same = term(model, {**config, 'target': 'frozen', 'teacher': f'{tmp_path}/own.pth'})
        far, _ = term(model, {**config, 'target': 'frozen', 'teacher': f'{tmp_path}/other.pth'})
        assert own == pytest.approx(detached, rel=1e-4)
        assert relative_difference(same, gradients, floor=1e-3) < 1e-4
        assert far > 2 * own
        assert list(model.state_dict()) == keys

    def test_teacher_of_another_model(self, tmp_path):
        save_checkpoint(
            {'state_dict': build_segmentor().state_dict()}, str(tmp_path / 'teacher.pth')
        )
        config = dict(type='FMA', target='frozen', teacher=f'{tmp_path}/teacher.pth')
        with pytest.raises(ValueError, match=r'teacher.*lacks .* weights'):
            mmfeataug.attach(build_detector(), [config])


@pytest.mark.parametrize('bn', ['shared', 'frozen', 'eval'])
def test_running_statistics(bn):
    """One update by the clean pass, and one by the copy only if it shares them."""
    model = build_segmentor()
    term(model, dict(type='FMA', bn=bn))
    counts = {
        int(b) for n, b in model.backbone.named_buffers() if n.endswith('num_batches_tracked')
    }
    assert counts == {2 if bn == 'shared' else 1}


def test_images_are_distorted_in_grey_levels():
    """Whatever the data preprocessor made of them."""
    cfg = deeplab_cfg()
    cfg['data_preprocessor'].update(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0])
    scale = PixelScale(build_segmentor(cfg))
    raw = torch.rand(2, 3, 8, 8) * 255
    levels = scale.level(scale.preprocessed(raw))
    torch.testing.assert_close(scale.raw(scale.preprocessed(raw)), raw, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        scale.preprocessed(raw + 1) - scale.preprocessed(raw),
        levels.expand_as(raw),
        atol=1e-5,
        rtol=0,
    )
    assert levels.flatten().tolist() == pytest.approx([1 / 60, 1 / 50, 1 / 40])


def test_pixel_attack_is_one_grey_level():
    from mmfeataug.methods import AFAN
    from tests.test_methods.test_afan import make_tail

    cfg = deeplab_cfg()
    cfg['data_preprocessor'].update(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0])
    model = build_segmentor(cfg)
    method, scale = AFAN(at='inputs', unit='pixel', gamma=3.0), PixelScale(model)
    method.bind(model)
    raw = torch.randint(0, 256, (2, 3, 8, 8)).float()
    grad = torch.randn_like(raw)
    (view,) = method.views([scale.preprocessed(raw)], [grad], make_tail(grad)[0])
    expected = (raw + 3 * grad.sign()).clamp(0, 255)
    torch.testing.assert_close(scale.raw(view.features[0]), expected, atol=1e-3, rtol=0)


class TestAgainst:
    """The attack of chosen terms, and of the stronger one."""

    def views(self, against):
        model = build_detector()
        seen = []

        class Spy(mmfeataug.methods.AFAN):
            def views(self, features, gradients, tail):
                for view in super().views(features, gradients, tail):
                    seen.append((features[0], view.features[0], tail(view.features)[0]))
                    yield view

        augmentation = Spy(at='backbone.layer2', gamma=0.05, against=against)
        with mmfeataug.attach(model, [augmentation], strict=True):
            step(model, random_test_batch(model))
        ((_, view, total),) = seen
        return view, total

    def test_terms_differ_and_the_stronger_one_is_kept(self):
        classes, boxes = self.views(['cls']), self.views(['bbox'])
        assert not torch.equal(classes[0], boxes[0])
        stronger = max(classes, boxes, key=lambda found: found[1])
        torch.testing.assert_close(self.views([['cls'], ['bbox']])[0], stronger[0])

    def test_unknown_term(self):
        with pytest.raises(RuntimeError, match=r"against=\('mask',\) names no term.*loss_rpn_cls"):
            self.views(['mask'])


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: FMA(distortions=[dict(type='RandomHorizontalFlip')]), 'moves pixels'),
        (lambda: FMA(target='frozen'), 'belong together'),
        (lambda: FMA(teacher='x.pth'), 'belong together'),
        (lambda: FMA(target='mean'), r"target='mean'.*detached, online, frozen"),
        (lambda: FMA(at='inputs'), 'compares features'),
        (lambda: FMA(weight=-1), 'weight=-1'),
        (lambda: StabilityTraining(at='x', form='both'), r"form='both'"),
        (
            lambda: StabilityTraining(at='x', form='embedding', sigmoid=True),
            r"sigmoid=True at 'x' is of predictions",
        ),
    ],
)
def test_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
