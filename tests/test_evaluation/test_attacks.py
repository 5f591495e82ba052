# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Attacks one by one: known answers, weights of pixels, restarts, ensembles, units."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmfeataug.engine import Tail
from mmfeataug.evaluation.attacks.attacked_batch import Target
from mmfeataug.evaluation.attacks.attacks import make_attack
from mmfeataug.evaluation.attacks.base import Images
from mmfeataug.evaluation.attacks.geometry import Region
from mmfeataug.evaluation.attacks.image_scores import image_score
from mmfeataug.evaluation.attacks.pgd import PGD
from mmfeataug.evaluation.attacks.pixel_loss import TERM, PixelLoss, PixelLossError
from mmfeataug.evaluation.attacks.strongest import known_scores, terms_of
from mmfeataug.methods import AFAN
from tests.test_evaluation.test_adversarial import LAYER, made

WEIGHTS = np.array([[-2.0, -4.0], [-4.0, -4.0]])
LABELS = np.array([1, 0])


class TwoPixels(nn.Module):
    """Two numbers to two pixels of two classes: logits of 0 and of ``WEIGHTS @ x``."""

    def __init__(self):
        super().__init__()
        self.decode_head = Head()

    def losses(self, x):
        z = (torch.tensor(WEIGHTS) @ x.flatten()).reshape(1, 1, 1, 2)
        labels = torch.tensor(LABELS).reshape(1, 1, 2)
        sample = SimpleNamespace(gt_sem_seg=SimpleNamespace(data=labels))
        return self.decode_head.loss_by_feat(torch.cat([torch.zeros_like(z), z], 1), [sample])


class Head(nn.Module):
    ignore_index, align_corners = 255, False

    def loss_by_feat(self, logits, samples):
        labels = samples[0].gt_sem_seg.data
        return {'loss_ce': F.cross_entropy(logits, labels)}


def attacked(kind, steps, eps=0.7, **options):
    """Where an attack from the clean value (0.2, 0.1) ends."""
    model = TwoPixels()

    def evaluate(features, against=()):
        leaf = features[0].detach().requires_grad_()
        losses = model.losses(leaf)
        loss = sum(v for k, v in losses.items() if not against or any(w in k for w in against))
        return loss.detach(), [torch.autograd.grad(loss, leaf)[0]]

    feature = torch.tensor([0.2, 0.1], dtype=torch.float64).reshape(1, 2, 1, 1)
    options = dict(at='x', unit='absolute', random_start=False, steps=steps, **options)
    attack = make_attack(kind, eps, **options)
    attack.images = Images(['a'], [Region(0, 0, 1, 1)], 0)
    attack.bind(model)
    tail = Tail(evaluate, torch.Generator())
    (view,) = attack.views([feature], evaluate([feature])[1], tail)
    return view.features[0].flatten().numpy()


def gradient(x, weights):
    """Of the weighted mean cross entropy, and the loss itself."""
    z = WEIGHTS @ x
    p = 1 / (1 + np.exp(-z))
    losses = -np.log(np.where(LABELS == 1, p, 1 - p))
    return (weights(z, p) * (p - LABELS) / 2) @ WEIGHTS, (losses / 2).sum()


def by_hand(kind, steps, eps=0.7):
    clean = np.array([0.2, 0.1])
    x = clean.copy()
    for t in range(1, steps + 1):
        share = (t - 1) / (2 * steps)

        def weights(z, p, share=share):
            if kind == 'segpgd':
                return np.where((z > 0) != LABELS, share, 1 - share)
            if kind == 'cospgd':
                own = np.where(LABELS == 1, p, 1 - p)
                return own / np.sqrt(p**2 + (1 - p) ** 2)
            return np.ones(2)

        up = np.sign(gradient(x, weights)[0])
        x = np.clip(x + 2.5 * eps / steps * up, clean - eps, clean + eps)
    return x


@pytest.mark.parametrize('steps', [1, 3, 8])
@pytest.mark.parametrize('kind', ['pgd', 'segpgd', 'cospgd'])
def test_steps_on_two_pixels(kind, steps):
    np.testing.assert_allclose(attacked(kind, steps), by_hand(kind, steps), atol=1e-12)


def test_weights_of_pixels_lead_elsewhere():
    ends = {tuple(by_hand(kind, 8).round(6)) for kind in ('pgd', 'segpgd', 'cospgd')}
    assert len(ends) == 3


def test_apgd_on_two_pixels():
    """Two steps: of 2 eps without momentum, then three quarters of one and a quarter of the
    last move; the better of the points counts.
    """
    eps, clean = 0.7, np.array([0.2, 0.1])

    def even(z, p):
        return np.ones(2)

    def bounded(x):
        return np.clip(x, clean - eps, clean + eps)

    slope, loss = gradient(clean, even)
    first = bounded(clean + 2 * eps * np.sign(slope))
    slope, loss_1 = gradient(first, even)
    # The first of two steps is a checkpoint (22 % of 2, rounded up).
    start, size = (first, 2 * eps) if loss_1 > loss else (clean, eps)
    stepped = bounded(start + size * np.sign(gradient(start, even)[0]))
    second = bounded(start + 0.75 * (stepped - start) + 0.25 * (start - clean))
    points = [clean, first, second]
    expected = max(points, key=lambda x: gradient(x, even)[1])
    np.testing.assert_allclose(attacked('apgd', 2), expected, atol=1e-12)


@pytest.mark.parametrize('kind', ['segpgd', 'cospgd'])
def test_pixels_of_a_real_segmentor(kind):
    """The term is the weighted cross entropy of what ``mode='tensor'`` gives; auxiliary heads and
    ignored pixels have no part in it.
    """
    model, inputs, samples = made('segmentor')
    loss = PixelLoss(model)
    known = []

    def weigh(logits, labels, wrong):
        known.append((logits.detach(), wrong))
        return labels.float() + 1

    with loss.weighted(weigh):
        losses = model.loss(inputs, samples)
    labels = torch.cat([s.gt_sem_seg.data for s in samples])
    logits = model(inputs, mode='tensor')
    logits = F.interpolate(logits, labels.shape[-2:], mode='bilinear', align_corners=False)
    valid = labels != 255
    assert not valid.all()
    each = F.cross_entropy(logits, labels, reduction='none', ignore_index=255) * (labels + 1)
    torch.testing.assert_close(losses[f'decode.{TERM}'], each[valid].sum() / valid.sum())
    assert [k for k in losses if k.startswith('decode')] == [f'decode.{TERM}']
    assert torch.equal(known[0][1][valid], (logits.argmax(1) != labels)[valid])
    assert 'decode.loss_ce' in model.loss(inputs, samples)
    # Behind an attack, more pixels are wrong than behind a random draw.
    with Target(model).open(inputs, samples) as batch:
        right = {}
        for steps, size in ((4, None), (1, 0.0)):
            attack = make_attack(kind, 4.0, at='inputs', steps=steps, step_size=size)
            right[steps] = np.mean(known_scores(batch, batch.predict(batch.attack(attack))))
    assert right[4] < right[1] - 0.02


def test_one_channel_for_two_classes():
    head = SimpleNamespace(ignore_index=255, align_corners=False, threshold=0.3)
    loss = PixelLoss(SimpleNamespace(decode_head=SimpleNamespace(loss_by_feat=None, **vars(head))))
    found = []

    def weigh(logits, labels, wrong):
        found.append(wrong)
        return torch.ones(labels.shape)

    logits = torch.tensor([0.25, 0.35]).logit().reshape(1, 1, 1, 2)
    total = loss._loss(logits, torch.ones(1, 1, 2, dtype=torch.long), weigh)
    assert found[0].flatten().tolist() == [True, False]
    assert total.item() == pytest.approx(-np.log([0.25, 0.35]).mean(), rel=1e-5)


@pytest.mark.parametrize('kind', ['detector', 'classifier'])
def test_other_tasks_have_no_pixels(kind):
    model, inputs, samples = made(kind)
    attack = make_attack('segpgd', 2.0, at='inputs')
    with (
        Target(model).open(inputs, samples) as batch,
        pytest.raises(PixelLossError, match=f'{type(model).__name__}.*attack=.pgd'),
    ):
        batch.attack(attack)


def test_heads_of_several_maps_are_refused():
    loss = PixelLoss(TwoPixels())
    with pytest.raises(PixelLossError, match='Head has not one map'):
        loss._loss((torch.zeros(1, 2, 1, 2),) * 2, torch.zeros(1, 1, 2), None)


def test_restarts_keep_the_highest_loss():
    model, inputs, samples = made('classifier', images=1)
    options = dict(at='inputs', steps=1, against=['loss'], step_size=0.2)
    with Target(model).open(inputs, samples) as batch:
        assert known_scores(batch, batch.predict(batch.features)) == [1]
        starts = [PGD(eps=0.5, start=i, **options) for i in range(4)]
        points = [batch.attack(start) for start in starts]
        losses = [batch.loss_of(p) for p in points]
        scores = [np.mean(known_scores(batch, batch.predict(p))) for p in points]
        assert losses[0] < max(losses)
        assert len(set(scores)) == 1
        best, _ = make_attack('pgd', 0.5, restarts=4, **options).attack(batch)
        assert batch.loss_of(best) == max(losses)
        first = batch.attack(make_attack('pgd', 0.5, **options))
        assert torch.equal(first[0], points[0][0])


MEMBERS = dict(
    segmentor={'pgd', 'segpgd', 'cospgd', 'apgd'},
    classifier={'pgd', 'apgd'},
    detector={'pgd', 'apgd', 'pgd on cls', 'pgd on bbox', 'pgd on rpn'},
)


def test_members_without_a_random_start_are_there_once():
    model, inputs, samples = made('classifier', images=1)
    for random_start, count in ((True, 4), (False, 2)):
        ensemble = make_attack('ensemble', 2.0, at='inputs', steps=1, random_start=random_start)
        with Target(model).open(inputs, samples) as batch:
            assert len(list(ensemble.members(batch))) == count


@pytest.mark.parametrize('kind', list(MEMBERS))
def test_an_ensemble_is_its_strongest_member(kind):
    model, inputs, samples = made(kind, images=1)
    ensemble = make_attack('ensemble', 2.0, at='inputs', steps=2)
    with Target(model).open(inputs, samples) as batch:
        members = list(ensemble.members(batch))
        assert {name for name, _ in members} == MEMBERS[kind]
        found = []
        for name, member in members:
            features = batch.attack(member)
            score = np.mean(known_scores(batch, batch.predict(features)))
            found.append((-score, batch.loss_of(features), name, features))
        features, name = ensemble.attack(batch)
        best = max(found, key=lambda one: one[:2])
        assert name == best[2]
        assert torch.equal(features[0], best[3][0])
        alike = [one[1] for one in found if one[0] == best[0]]
        assert batch.loss_of(features) == max(alike)


def test_parts_of_detectors_losses():
    faster = ['loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox']
    assert terms_of(faster) == dict(
        cls=['loss_rpn_cls', 'loss_cls'],
        bbox=['loss_rpn_bbox', 'loss_bbox'],
        rpn=['loss_rpn_cls', 'loss_rpn_bbox'],
    )
    fcos = terms_of(['loss_cls', 'loss_bbox', 'loss_centerness'])
    assert fcos == dict(cls=['loss_cls', 'loss_centerness'], bbox=['loss_bbox'])
    detr = terms_of(['loss_cls', 'loss_bbox', 'loss_iou', 'd0.loss_cls', 'd0.loss_bbox'])
    assert detr['bbox'] == ['loss_bbox', 'loss_iou', 'd0.loss_bbox']
    assert terms_of(['loss_cls']) == {}


def test_std_is_one_unit_in_training_and_evaluation():
    """One step of A-FAN and one of PGD, from the clean feature, end at the same point."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.rand(1, 5, 1, 1, generator=generator) * 9
    feature = torch.randn(2, 5, 6, 7, generator=generator) * scale
    slope = torch.randn(feature.shape, generator=generator)
    tail = Tail(lambda features, against=(): (torch.zeros(()), [slope]), generator)
    afan = AFAN(at='x', gamma=0.3, steps=2, eps=0.5, unit='std')
    pgd = make_attack('pgd', 0.5, at='x', unit='std', steps=2, step_size=0.3, random_start=False)
    ends = [next(iter(a.views([feature], [slope], tail))).features[0] for a in (afan, pgd)]
    torch.testing.assert_close(*ends)
    std = feature.std((2, 3), correction=0, keepdim=True)
    torch.testing.assert_close((ends[1] - feature) / std, 0.5 * slope.sign())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(attack='segpgd', against=['decode']), 'segpgd weighs'),
        (dict(attack='ensemble', against=['cls']), 'one by one'),
        (dict(attack='ensemble', step_size=1.0), 'one by one'),
        (dict(attack='pgd', restarts=0), 'restarts=0'),
        (dict(attack='pgd', restarts=2, random_start=False), 'without a random start'),
        (dict(attack='swap', at=LAYER, restarts=2), 'no random start'),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        make_attack(**{'eps': 1.0, 'at': 'inputs', **options})


def test_scores_of_images():
    _, _, (sample, _) = made('detector')
    found = sample.clone()
    found.pred_instances = sample.gt_instances.clone()
    found.pred_instances.scores = torch.tensor([0.9, 0.8, 0.7])
    assert image_score(found, sample) == pytest.approx(1)
    found.pred_instances.labels = (found.pred_instances.labels + 1) % 3
    assert image_score(found, sample) < 1
    found.pred_instances = found.pred_instances[:0]
    assert image_score(found, sample) == 0
    sample.gt_instances = sample.gt_instances[:0]
    assert np.isnan(image_score(found, sample))


def test_several_labels_have_no_score():
    DataSample = pytest.importorskip('mmpretrain.structures').DataSample
    found, truth = DataSample(), DataSample()
    found.set_pred_label(torch.tensor([0, 1, 2]))
    truth.set_gt_label(torch.tensor([0, 2]))
    assert np.isnan(image_score(found, truth))
    assert np.isnan(image_score(DataSample().set_pred_label(2), truth))
    assert image_score(DataSample().set_pred_label(2), DataSample().set_gt_label(2)) == 1.0
