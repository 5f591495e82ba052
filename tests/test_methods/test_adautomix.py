# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""AdAutoMix: oracles, gradient routing, targets of three tasks, teacher, refusals."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

import mmfeataug
from mmfeataug.engine import Choice, Plan, stock_state_dict
from mmfeataug.methods import AdAutoMix
from mmfeataug.methods.targets import Mixture, mixed_targets
from mmfeataug.models import AugmentedModel, CosineEMA, MaskGenerator
from tests.models import (
    build_classifier,
    build_detector,
    build_segmentor,
    classifier_cfg,
    deeplab_cfg,
    faster_rcnn_cfg,
    gradients,
    random_test_batch,
    retinanet_cfg,
    step,
    upernet_swin_cfg,
)

pytestmark = pytest.mark.adautomix

PLACES = {
    'classifier': dict(at='backbone.layer3', channels=32, compare='head.fc'),
    'deeplabv3plus': dict(at='backbone.layer3', channels=64, compare='decode_head.conv_seg'),
    'upernet-swin': dict(at='neck_or_norm', channels=0, compare='decode_head.conv_seg'),
    'faster-rcnn': dict(at='backbone.layer3', channels=64, compare='neck'),
    'retinanet': dict(at='backbone.layer3', channels=64, compare='neck'),
}
PLACES['upernet-swin'].update(at='decode_head.lateral_convs.2', channels=32)
CONFIGS = {
    'classifier': (build_classifier, classifier_cfg),
    'deeplabv3plus': (build_segmentor, deeplab_cfg),
    'upernet-swin': (build_segmentor, upernet_swin_cfg),
    'faster-rcnn': (build_detector, faster_rcnn_cfg),
    'retinanet': (build_detector, retinanet_cfg),
}
MODELS = pytest.mark.parametrize('kind', CONFIGS)


def build(kind, **settings):
    """A model, its augmentation and a teacher that is not the model."""
    make, config = CONFIGS[kind]
    if kind == 'classifier':
        pytest.importorskip('mmpretrain')
    entry = dict(type='mmfeataug.AdAutoMix', **PLACES[kind], **settings)
    cfg = config()
    declared = dict(cfg, type='mmfeataug.AugmentedModel', of=cfg['type'], augmentations=[entry])
    model = make(declared)
    torch.manual_seed(1)
    with torch.no_grad():
        # Masks that differ from place to place.
        model.feature_aug['mixer'].value.weight.normal_(0, 1.0)
        model.feature_aug['mixer'].key.weight.normal_(0, 1.0)
    teacher = copy.deepcopy(model).requires_grad_(False)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(0.95)
    return model, entry, teacher


def run(kind, iteration=0, images=3, **settings):
    model, entry, teacher = build(kind, **settings)
    batch = random_test_batch(model, images=images)
    with mmfeataug.attach(model, [entry], clean_weight=0.5) as handle:
        handle.follow(teacher)
        handle.plan = Plan(iteration)
        losses, found = step(model, batch)
    return model, losses, found


def own(name):
    return name.startswith('feature_aug.')


# ------------------------------------------------------------------ the generator


def test_masks_sum_to_one_and_are_equal_where_values_are_zero():
    generator = MaskGenerator(8)
    features, index = torch.randn(3, 8, 4, 5), torch.tensor([[0, 1, 2], [1, 2, 0], [2, 2, 2]])
    torch.nn.init.normal_(generator.value.weight)
    masks = generator(features, index, torch.tensor([0.2, 0.5, 0.3]), (16, 20))
    assert masks.shape == (3, 3, 16, 20)
    assert torch.allclose(masks.sum(1), torch.ones(3, 16, 20))
    assert masks.std() > 1e-3
    torch.nn.init.zeros_(generator.value.weight)
    torch.nn.init.zeros_(generator.value.bias)
    masks = generator(features, index, torch.tensor([0.2, 0.5, 0.3]), (16, 20))
    assert torch.allclose(masks, torch.full_like(masks, 1 / 3))


def test_masks_are_attention_of_each_sample_to_the_others():
    """Against the formula written out, for one position after the other."""
    generator = MaskGenerator(4).double()
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter)
    features = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    other = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    both, index = torch.cat([features, other]), torch.tensor([[0], [1]])
    masks = generator(both, index, torch.tensor([0.5, 0.5]), (2, 2))
    logits = []
    for mine, others in ((features, other), (other, features)):
        q, k, v = generator.query(mine), generator.key(others), generator.value(mine)
        q, k, v = q[0].flatten(1), k[0].flatten(1), v[0].flatten(1)
        attention = (q.T @ k / 2**0.5).softmax(-1)
        logits.append(attention @ v[0])
    expected = torch.stack(logits).softmax(0).view(2, 2, 2)
    assert torch.allclose(masks[0], expected)


@pytest.mark.parametrize('norm', [False, True])
def test_masks_with_what_the_authors_have_behind_query_and_key(norm):
    """Batch norm of each part by itself, and ReLU; against the formula written out."""
    generator = MaskGenerator(4, relu=True, norm=norm).double()
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter)
    assert (generator.query.bias is None, generator.key.bias is None) == (norm, norm)
    features = torch.randn(3, 4, 2, 2, dtype=torch.float64)
    index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    masks = generator(features, index, torch.tensor([0.5, 0.5]), (2, 2))

    def behind(convolution, layers, part):
        made = convolution(features[part])
        if norm:
            mean, var = made.mean((0, 2, 3)), made.var((0, 2, 3), correction=0)
            scale, shift = layers[0].weight, layers[0].bias
            made = (made - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
            made = made * scale[:, None, None] + shift[:, None, None]
        return made.clamp(min=0).flatten(2)

    logits = []
    for mine, other in (index, index.flip(0)):
        q = behind(generator.query, generator.behind_query, mine)
        k = behind(generator.key, generator.behind_key, other)
        v = generator.value(features[mine]).flatten(2)
        attention = (q.mT @ k / 2**0.5).softmax(-1)
        logits.append((attention @ v.mT)[..., 0])
    expected = torch.stack(logits, 1).softmax(1).view(3, 2, 2, 2)
    assert torch.allclose(masks, expected)


def test_masks_depend_on_the_shares_only_with_lam_concat():
    features, index = torch.randn(2, 8, 4, 4), torch.tensor([[0, 1], [1, 0]])
    for lam_concat in (False, True):
        generator = MaskGenerator(8, lam_concat=lam_concat)
        torch.nn.init.normal_(generator.value.weight)
        a = generator(features, index, torch.tensor([0.1, 0.9]), (4, 4))
        b = generator(features, index, torch.tensor([0.9, 0.1]), (4, 4))
        assert torch.equal(a, b) != lam_concat


def test_generator_refuses_other_features():
    generator = MaskGenerator(8)
    with pytest.raises(ValueError, match='channels=8'):
        generator(torch.randn(2, 9, 4, 4), torch.tensor([[0, 1]]), torch.ones(1), (4, 4))
    with pytest.raises(ValueError, match='four dimensions'):
        generator(torch.randn(2, 8, 4), torch.tensor([[0, 1]]), torch.ones(1), (4, 4))
    with pytest.raises(ValueError, match="upsample='cubic'"):
        MaskGenerator(8, upsample='cubic')


# ------------------------------------------------------------------ draws


def method(**settings):
    return AdAutoMix(at='a', channels=4, compare='b', **settings)


def draw(made, batch, seed):
    generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
    return made.draw(batch, *generators)


def test_draws_are_those_of_the_seed_and_shares_sum_to_one():
    for samples in (2, 3, 5):
        drawn = [draw(method(samples=samples), 6, 4) for _ in '12']
        for first, second in zip(*drawn, strict=True):
            assert torch.equal(first.index, second.index)
            assert torch.equal(first.shares, second.shares)
            assert first.shares.sum().item() == pytest.approx(1)
            assert first.index.shape == (samples, 6)
            assert first.index.sort(1).values.tolist() == [list(range(6))] * samples
            assert all(len(set(parts)) == samples for parts in first.index.T.tolist())
        for_generator, for_network = drawn[0]
        assert torch.equal(for_generator.shares, for_network.shares) == (samples > 2)
        assert not torch.equal(for_generator.index, for_network.index)


def test_small_batches_mix_no_sample_with_itself():
    index = draw(method(samples=4), 2, 0)[0].index
    assert index.tolist() == [[0, 1], [1, 0], [1, 0], [1, 0]]


def test_number_of_samples_can_be_drawn():
    counts = {len(draw(method(random_samples=True), 4, s)[0].index) for s in range(20)}
    assert counts == {2, 3}


def test_a_dominant_first_image_leaves_the_mixture_plain():
    augmentation = method(lam_margin=0.2)
    augmentation._mixer = MaskGenerator(4)
    index = torch.tensor([[0, 1], [1, 0]])
    for share, plain in ((0.9, True), (0.7, False)):
        shares = torch.tensor([share, 1 - share])
        mixture = Mixture(index, shares, shares.view(1, 2, 1, 1).expand(2, -1, -1, -1))
        masks = augmentation.ask(mixture, torch.randn(2, 4, 2, 2), (4, 4)).masks
        assert masks.shape == (2, 2, 4, 4)
        assert masks.requires_grad != plain
        assert (masks[0, 0] == share).all() == plain


# ------------------------------------------------------------------ losses and gradients


class Recorder:
    """Stands for the network in :meth:`AdAutoMix.losses`: a loss and logits that are known."""

    counts = (1, 1)

    def __init__(self, update_count=0, loss=2.0):
        self.model, self.samples = torch.nn.Module(), [{'gt_label': 0}] * 2
        self.model.head = torch.nn.Module()
        self.model.head.num_classes = 3
        self.teacher, self.update_count, self.value, self.passes = {}, update_count, loss, []
        self.shared = torch.Generator()

    def __call__(self, images, loss=False, **how):
        self.passes.append((loss, 'weights' in how))
        features = [torch.ones(2, 4, 2, 2), torch.eye(3)[:2]]
        return (features, torch.tensor(self.value)) if loss else features


@pytest.fixture
def recorder(monkeypatch):
    from contextlib import nullcontext

    import mmfeataug.methods.adautomix as module

    monkeypatch.setattr(module, 'mixed_targets', lambda *_: nullcontext([]))
    return Recorder


def losses(recorder, turn=0, **settings):
    augmentation = method(**settings)
    augmentation._mixer = MaskGenerator(4)
    network = recorder(turn)
    generator = torch.Generator().manual_seed(0)
    found = list(augmentation.losses(torch.randn(2, 3, 4, 4), [], network, generator))
    return [float(value) for value in found], network


def test_loss_of_the_generator(recorder):
    """-beta L_k + (1 - beta) s with the release's sign; for L_k = 2, s = 0.6, beta = 0.3: -0.18."""
    plain, _ = draw(method(samples=2), 2, 0)
    s = float(plain.shares[0])  # each logit is orthogonal to the other's
    for similarity, sign in (('lower', 1), ('raise', -1)):
        (value, _), _ = losses(recorder, samples=2, beta=0.3, similarity=similarity)
        assert value == pytest.approx(-0.3 * 2 + 0.7 * sign * s)
    for settings in (dict(turn=1), dict(adversarial=False)):
        (value, _), _ = losses(recorder, samples=2, **settings)
        assert value == pytest.approx(2.0)


def test_weights_of_what_the_network_learns(recorder):
    """The losses of the mixture and, of three images, of plain mixup; L_k = 2."""
    (_, mixed, plain), _ = losses(recorder, samples=3, weight=0.3, mixup_weight=0.7)
    assert mixed == pytest.approx(0.6)
    assert plain == pytest.approx(1.4)


def test_passes_are_counted(recorder):
    """Two of the teacher, one of them without a graph; one of the network, two for three images."""
    for samples, own_passes in ((2, 1), (3, 2)):
        values, network = losses(recorder, samples=samples)
        assert network.passes == [(False, True), (True, True), *[(True, False)] * own_passes]
        assert len(values) == 1 + own_passes
    assert values[2] == pytest.approx(1.0)  # half of 2


@MODELS
def test_each_loss_reaches_its_own_parameters_only(kind):
    """The generator's loss trains the generator, the network's the network."""
    model, logged, found = run(kind, samples=2, lam_margin=0.0)
    assert all(p.grad is None or not p.grad.requires_grad for p in model.parameters())
    copy.deepcopy(model)
    assert {k for k in logged if k.startswith('adautomix.loss')} == {
        'adautomix.loss_0',
        'adautomix.loss_1',
    }
    mixer = [g for n, g in found.items() if own(n)]
    assert any(g is not None and g.abs().sum() > 0 for g in mixer)
    assert all(g is None or g.isfinite().all() for g in found.values())

    # Without the generator's loss its parameters get nothing, and the others what they got.
    alone, entry, teacher = build(kind, samples=2, lam_margin=0.0)
    batch = random_test_batch(alone, images=3)
    with mmfeataug.attach(alone, [entry], clean_weight=0.5) as handle:
        handle.follow(teacher)
        (method,) = handle.augmentations.values()
        terms = method.losses

        def network_only(*args):
            return (v for i, v in enumerate(terms(*args)) if i)

        method.losses = network_only
        _, without = step(alone, batch)
    for name, gradient in without.items():
        if own(name):
            assert gradient is None
        elif gradient is not None:
            assert torch.equal(gradient, found[name]), name


@MODELS
def test_keys_and_predictions_are_stock(kind):
    model, _, _ = build(kind)
    make, config = CONFIGS[kind]
    stock = make(config())
    weights = stock_state_dict(model.state_dict())
    assert weights.keys() == stock.state_dict().keys()
    assert list(weights) == [k for k in model.state_dict() if not own(k)]
    stock.load_state_dict(weights)
    batch = random_test_batch(model, images=2)
    model.eval(), stock.eval()
    with torch.no_grad():
        for a, b in zip(flat(model(*batch)), flat(stock(*batch)), strict=True):
            assert torch.equal(a, b)


def flat(value):
    from torch.utils._pytree import tree_flatten

    return tree_flatten(value)[0]


@pytest.mark.parametrize('off', [dict(mixup_weight=0.0), dict(samples=2)], ids=str)
def test_off_is_stock(off):
    model, entry, teacher = build('deeplabv3plus', weight=0.0, **off)
    batch = random_test_batch(model)
    _, stock = step(model, batch)
    with mmfeataug.attach(model, [entry]) as handle:
        handle.follow(teacher)
        _, found = step(model, batch)
    assert all(torch.equal(stock[n], found[n]) for n in stock if stock[n] is not None)


def test_statistics_of_the_teacher_stay():
    model, entry, teacher = build('deeplabv3plus')
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    with mmfeataug.attach(model, [entry]) as handle:
        handle.follow(teacher)
        step(model, random_test_batch(model))
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_masks_are_made_in_full_precision():
    model, entry, teacher = build('deeplabv3plus')
    seen = []
    model.feature_aug['mixer'].register_forward_hook(lambda m, i, out: seen.append((i[0], out)))
    with (
        mmfeataug.attach(model, [entry]) as handle,
        torch.autocast('cpu', torch.bfloat16),
    ):
        handle.follow(teacher)
        logged, found = step(model, random_test_batch(model))
    assert [t.dtype for pair in seen for t in pair] == [torch.float32] * 2 * len(seen)
    assert seen
    assert all(g is None or g.isfinite().all() for g in found.values())
    assert float(logged['adautomix.dropped']) == 0


def test_a_single_image_is_not_mixed():
    model, entry, teacher = build('deeplabv3plus')
    with mmfeataug.attach(model, [entry]) as handle:
        handle.follow(teacher)
        # Batch norm of one pooled pixel needs two images.
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        logged, _ = step(model, random_test_batch(model, images=1))
    assert not [k for k in logged if k.startswith('adautomix.loss')]


# ------------------------------------------------------------------ targets


def halves(height=64, width=64):
    """Two images, each with the other's right half."""
    masks = torch.zeros(2, 2, height, width)
    masks[:, 0, :, : width // 2], masks[:, 1, :, width // 2 :] = 1, 1
    return Mixture(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0.25, 0.75]), masks)


def test_labels_are_mixed_by_their_shares():
    pytest.importorskip('mmpretrain')
    model = build_classifier()
    _, samples = random_test_batch(model)
    for sample, label in zip(samples, (1, 3), strict=True):
        sample.set_gt_label(label)
    with mixed_targets(model, samples, halves(), torch.Generator()) as mixed:
        assert mixed[0].gt_score.tolist() == [0, 0.25, 0, 0.75, 0]
        assert mixed[1].gt_score.tolist() == [0, 0.75, 0, 0.25, 0]
    assert 'gt_score' not in samples[0]


@pytest.mark.parametrize('kind', ['deeplabv3plus', 'upernet-swin'])
def test_losses_of_maps_are_weighted_pixel_by_pixel(kind):
    """With masks of zeros and ones that is the loss of the pasted map, and a uniform mask gives the
    mean of both losses."""
    make, config = CONFIGS[kind]
    model = make(config())
    for module in model.modules():
        if isinstance(module, (torch.nn.Dropout, torch.nn.Dropout2d)):
            module.eval()
    inputs, samples = random_test_batch(model)
    inputs = inputs.float()

    def losses(given, seed=0):
        torch.manual_seed(seed)
        found = model.loss(inputs, given)
        return {k: v.detach() for k, v in found.items() if 'loss' in k}

    pasted = [copy.deepcopy(s) for s in samples]
    left, right = samples[0].gt_sem_seg.data.clone(), samples[1].gt_sem_seg.data.clone()
    pasted[0].gt_sem_seg.data = torch.cat([left[..., :32], right[..., 32:]], -1)
    pasted[1].gt_sem_seg.data = torch.cat([right[..., :32], left[..., 32:]], -1)
    mixture = halves()
    with mixed_targets(model, samples, mixture, torch.Generator()) as mixed:
        found = losses(mixed)
    expected = losses(pasted)
    assert all(torch.allclose(found[k], expected[k], rtol=1e-5) for k in expected)

    mixture.masks = torch.full_like(mixture.masks, 0.5)
    with mixed_targets(model, samples, mixture, torch.Generator()) as mixed:
        found = losses(mixed)
    a, b = losses(samples), losses([samples[1], samples[0]])
    assert all(torch.allclose(found[k], (a[k] + b[k]) / 2, rtol=1e-5) for k in a)
    assert losses(samples).keys() == a.keys()
    assert all('forward' not in m.__dict__ for m in model.modules())


def test_boxes_are_kept_with_the_probability_of_their_mass():
    model = build_detector()
    _, samples = random_test_batch(model)
    box = torch.tensor([[8.0, 8, 24, 24]]), torch.tensor([[40.0, 8, 56, 24]])
    for sample, corners in zip(samples, box, strict=True):
        both = torch.cat([corners, torch.tensor([[16.0, 0, 48, 64]])])
        sample.gt_instances = InstanceData(bboxes=both, labels=torch.tensor([0, 1]))
    kept = 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        with mixed_targets(model, samples, halves(), generator) as mixed:
            boxes = mixed[0].gt_instances.bboxes.tolist()
            # Left half: its own box there; right half: the other's.
            assert boxes.count([8, 8, 24, 24]) == 1
            assert boxes.count([40, 8, 56, 24]) == 1
            kept += boxes.count([16, 0, 48, 64])
            assert mixed[0].img_shape == (64, 64)
    assert 160 < kept < 240  # half of 2 x 200
    assert len(samples[0].gt_instances) == 2
    # Regions to ignore stay so, though the other image has none.
    samples[0].ignored_instances = InstanceData(bboxes=torch.empty(0, 4))
    samples[1].ignored_instances = InstanceData(bboxes=torch.ones(1, 4))
    generator = torch.Generator().manual_seed(0)
    with mixed_targets(model, samples, halves(), generator) as mixed:
        assert all(len(sample.ignored_instances) == 1 for sample in mixed)


def test_masks_of_images_of_other_sizes_reach_as_far_as_the_batch():
    from mmdet.structures.mask import BitmapMasks

    _, samples = random_test_batch(build_detector())
    for sample, (height, width) in zip(samples, ((64, 48), (32, 64)), strict=True):
        masks = BitmapMasks(np.ones((1, height, width), np.uint8), height, width)
        corners = torch.tensor([[0.0, 0, width, height]])
        sample.gt_instances = InstanceData(bboxes=corners, labels=torch.tensor([0]), masks=masks)
    mixture = replace(halves(), masks=torch.ones(2, 2, 64, 64))
    with mixed_targets(build_detector(), samples, mixture, torch.Generator()) as mixed:
        found = mixed[0].gt_instances.masks.masks
    assert found.shape == (2, 64, 64)
    assert found.sum((1, 2)).tolist() == [64 * 48, 32 * 64]
    assert samples[0].gt_instances.masks.masks.shape == (1, 64, 48)


@pytest.mark.parametrize('loss', ['LovaszLoss', 'DiceLoss', 'TverskyLoss', 'FocalLoss'])
def test_losses_that_do_not_weigh_pixels_are_refused(loss):
    cfg = deeplab_cfg()
    extra = dict(reduction='none') if loss == 'LovaszLoss' else {}
    cfg['decode_head']['loss_decode'] = dict(type=loss, **extra)
    model = build_segmentor(cfg)
    inputs, samples = random_test_batch(model)
    with (
        pytest.raises(ValueError, match=f'{loss} takes no weight for each pixel'),
        mixed_targets(model, samples, halves(), torch.Generator()) as mixed,
    ):
        model.loss(inputs, mixed)


@pytest.mark.parametrize('what', ['sampler', 'loss_se_decode'])
def test_heads_that_learn_from_more_than_the_mixed_maps_are_refused(what):
    """mmseg's OHEM weighs pixels, and EncNet names classes, by the maps of the first part."""
    model = build_segmentor()
    _, samples = random_test_batch(model)
    setattr(model.decode_head, what, torch.nn.Identity())
    with (
        pytest.raises(ValueError, match=f'{what} would go by the label maps of unmixed images'),
        mixed_targets(model, samples, halves(), torch.Generator()),
    ):
        pass


def test_heads_that_do_not_say_how_many_classes_there_are():
    """Scores say it; labels do not."""
    pytest.importorskip('mmpretrain')
    model = build_classifier()
    _, samples = random_test_batch(model)
    del model.head.num_classes
    with (
        pytest.raises(ValueError, match=r'has no head.num_classes.*to_onehot=True'),
        mixed_targets(model, samples, halves(), torch.Generator()),
    ):
        pass
    for sample, score in zip(samples, torch.eye(5), strict=False):
        sample.set_gt_score(score)
    with mixed_targets(model, samples, halves(), torch.Generator()) as mixed:
        assert mixed[0].gt_score.tolist() == [0.25, 0.75, 0, 0, 0]


def test_several_tensors_are_refused():
    model, entry, teacher = build('deeplabv3plus')
    with mmfeataug.attach(model, [{**entry, 'at': 'backbone'}]) as handle:
        handle.follow(teacher)
        with pytest.raises(RuntimeError, match="at='backbone' yields 4 tensors"):
            model.loss(*random_test_batch(model))


def test_all_terms_are_one_view():
    """A budget pays for their passes once, and has all of them for it."""
    model, entry, teacher = build('deeplabv3plus', samples=3)
    with mmfeataug.attach(model, [entry]) as handle:
        handle.follow(teacher)
        handle.plan = Plan(only=Choice('adautomix', 0))
        logged, _ = step(model, random_test_batch(model, images=3))
        assert handle.outcome.weights == {'adautomix': [1.0]}
        assert {f'adautomix.loss_{i}' for i in range(3)} <= logged.keys()
        handle.plan = Plan(only=Choice('other', 0))
        logged, _ = step(model, random_test_batch(model, images=3))
    assert not [k for k in logged if k.startswith('adautomix')]


def test_targets_that_cannot_be_mixed_are_refused():
    model = build_segmentor()
    _, samples = random_test_batch(model)
    for head in (model.decode_head, model.auxiliary_head):
        del head.loss_decode
    with (
        pytest.raises(ValueError, match='no loss_decode'),
        mixed_targets(model, samples, halves(), torch.Generator()),
    ):
        pass
    with (
        pytest.raises(ValueError, match='neither labels nor boxes'),
        mixed_targets(model, [{}], halves(), torch.Generator()),
    ):
        pass


# ------------------------------------------------------------------ the teacher


def test_momentum_of_the_teacher():
    average = CosineEMA(torch.nn.Linear(1, 1), total=1000, constant=0.0)
    kept = [1 - average.momentum_at(k) for k in (0, 500, 1000, 2000)]
    assert kept == pytest.approx([0.999, 0.9994995, 0.999999, 0.999999], abs=1e-9)
    average = CosineEMA(torch.nn.Linear(1, 1), total=1000)
    assert average.momentum_at(99) == 0.001
    assert average.momentum_at(100) < 0.001


def test_the_average_follows():
    source = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(source.weight)
    average = CosineEMA(source, momentum=0.5, end_momentum=0.5, total=10)
    average.update_parameters(source)
    torch.nn.init.ones_(source.weight)
    average.update_parameters(source)
    average.update_parameters(source)
    assert average.module.weight.item() == pytest.approx(0.75)
    MessageHub.get_instance('outside of a run')
    with pytest.raises(ValueError, match='give total='):
        CosineEMA(source).momentum_at(1)
    with pytest.raises(ValueError, match=r'end_momentum=0\.9'):
        CosineEMA(source, momentum=0.5, end_momentum=0.9)
    with pytest.raises(ValueError, match='constant=5'):
        CosineEMA(source, constant=5)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(samples=1), 'samples=1'),
        (dict(samples=2.5), 'samples=2.5'),
        (dict(samples=2, random_samples=True), 'random_samples=True'),
        (dict(alpha=0), 'alpha=0'),
        (dict(beta=2), 'beta=2'),
        (dict(lam_margin=-1), 'lam_margin=-1'),
        (dict(similarity='up'), "similarity='up'"),
        (dict(adversarial=False, beta=0.5), 'beta=0.5.*adversarial=False'),
        (dict(adversarial=False, similarity='lower'), "similarity='lower'.*adversarial=False"),
        (dict(teacher_bn='shared'), "teacher_bn='shared'"),
        (dict(weight=-1), 'weight=-1'),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        method(**settings)


def test_without_a_generator_or_a_teacher():
    model = build_segmentor()
    entry = dict(type='AdAutoMix', **PLACES['deeplabv3plus'])
    with pytest.raises(ValueError, match=r'0 generators.*AugmentedModel'):
        mmfeataug.attach(model, [entry])
    assert 'loss' not in vars(model)
    model, entry, _ = build('deeplabv3plus')
    with (
        mmfeataug.attach(model, [entry]),
        pytest.raises(RuntimeError, match='EMAHook'),
    ):
        model.loss(*random_test_batch(model))


def test_one_generator_a_model():
    entry = dict(type='mmfeataug.AdAutoMix', **PLACES['deeplabv3plus'])
    cfg = deeplab_cfg()
    build_segmentor()
    with pytest.raises(ValueError, match='two of them'):
        AugmentedModel(of=cfg.pop('type'), augmentations=[entry, entry], **cfg)


def test_generator_is_initialised_near_zero():
    cfg = deeplab_cfg()
    entry = dict(type='mmfeataug.AdAutoMix', **PLACES['deeplabv3plus'])
    model = build_segmentor(
        dict(cfg, type='mmfeataug.AugmentedModel', of=cfg['type'], augmentations=[entry])
    )
    for name, parameter in model.feature_aug.named_parameters():
        assert parameter.abs().max() < 0.1, name
        assert (parameter != 0).any() or name.endswith('bias')
    assert gradients(model)
