# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Tests under attack: the stock test at strength 0, what an attack may do, and what it leaves."""

import json
import re
from importlib import import_module

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

from mmfeataug.datasets import behind_loading
from mmfeataug.engine import RandomState, Tail, TapError
from mmfeataug.evaluation import read_predictions
from mmfeataug.evaluation.attacks.adversarial import AdversarialTestLoop
from mmfeataug.evaluation.attacks.attacked_batch import Target, as_in_training
from mmfeataug.evaluation.attacks.attacks import make_attack
from mmfeataug.evaluation.attacks.base import Images
from mmfeataug.evaluation.attacks.curve import score
from mmfeataug.evaluation.attacks.geometry import Region
from mmfeataug.evaluation.attacks.ground_truth import for_loss
from mmfeataug.evaluation.attacks.pgd import PGD
from mmfeataug.utils.pixels import PixelScale
from tests.launch import launch
from tests.models import (
    build_classifier,
    build_detector,
    build_segmentor,
    faster_rcnn_cfg,
    random_test_batch,
)
from tests.test_tools import ROOT, data_options, run

PREPROCESSOR = dict(type='DetDataPreprocessor', mean=[120.0, 110.0, 100.0], std=[58.0, 57.0, 60.0])


def detector():
    return build_detector(dict(faster_rcnn_cfg(), data_preprocessor=PREPROCESSOR))


KINDS = {'detector': detector, 'segmentor': build_segmentor, 'classifier': build_classifier}
LAYER = 'backbone.layer2'


@pytest.fixture(params=list(KINDS))
def case(request):
    return made(request.param)


def made(kind, images=2):
    """Model in evaluation mode, images of whole grey levels with padding, their samples."""
    model = KINDS[kind]().eval()
    inputs, samples = random_test_batch(model, images=images)
    scale = PixelScale(model)
    raw = (scale.raw(inputs.abs() * 40)).round().clamp(0, 255)
    inputs = scale.preprocessed(raw)
    for i, sample in enumerate(samples):
        sample.set_metainfo(dict(img_path=f'somewhere/{i}.png'))
    if kind == 'detector':
        samples[0].set_metainfo(dict(img_shape=(64, 48)))
        inputs[0, :, :, 48:] = 0
    return model, inputs, samples


def predictions(outputs):
    """Tensors of predictions, whatever the task."""
    found = []
    for sample in outputs:
        for name in ('pred_instances', 'seg_logits', 'pred_score'):
            value = getattr(sample, name, None)
            if value is not None:
                found += [value] if isinstance(value, torch.Tensor) else list(value.values())
    assert found
    return found


def same(a, b):
    a, b = predictions(a), predictions(b)
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def stock(model, inputs, samples):
    model.eval()
    with torch.no_grad():
        return model(inputs, [s.detach() for s in samples], mode='predict')


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_pixels(case, norm):
    model, inputs, samples = case
    kept, scale = inputs.clone(), PixelScale(model)
    losses = []
    with Target(model).open(inputs, samples) as batch:
        for eps in (1.0, 8.0) if norm == 'linf' else (20.0, 400.0):
            attack = make_attack('pgd', eps, at='inputs', norm=norm, unit='pixel', steps=4)
            (moved,) = batch.attack(attack)
            losses.append(batch.loss_of([moved], attack.against))
            raw, levels = scale.raw(moved), scale.raw(inputs).round()
            inside = batch.images.inside(inputs).expand_as(inputs) > 0
            assert torch.equal(moved[~inside], inputs[~inside])
            assert -1e-4 < raw[inside].min() <= raw[inside].max() < 255 + 1e-4
            away = (raw - levels) * inside
            if norm == 'linf':
                assert away.abs().max() <= eps + 1e-4
                assert away.abs().max() > 0.9 * eps
            else:
                length = away.flatten(1).norm(dim=1)
                assert (length <= eps * (1 + 1e-4)).all()
                assert (length > 0.5 * eps).all()
            assert same(batch.predict([moved]), stock(model, moved, samples))
    assert batch.loss < losses[0] < losses[1]
    assert torch.equal(inputs, kept)


@pytest.mark.parametrize(
    ('name', 'eps', 'options'),
    [
        ('pgd', 0.3, dict(unit='std')),
        ('pgd', 0.2, dict(unit='absolute', norm='linf')),
        ('pgd', 3.0, dict(unit='absolute', norm='l2')),
        ('statistics', 1.1, {}),
        ('swap', 1.0, {}),
    ],
)
def test_features(name, eps, options):
    model, inputs, samples = made('segmentor')
    attack = make_attack(name, eps, at=LAYER, **options)
    with Target(model, LAYER).open(inputs, samples) as batch:
        features = batch.attack(attack)
        loss = batch.loss_of(features, attack.against)
        assert loss == batch.total_at(features)
        found = batch.predict(features)
    (clean,), (moved,) = batch.features, features
    assert not torch.equal(clean, moved)
    if name == 'pgd':
        away, unit = moved - clean, 1.0
        if options['unit'] == 'std':
            unit = clean.std((2, 3), correction=0, keepdim=True)
        if options.get('norm') == 'l2':
            assert away.flatten(1).norm(dim=1).max() <= eps + 1e-4
        else:
            assert (away.abs() <= eps * unit + 1e-5).all()
    if name == 'swap':
        # Two images: each has the other's means.
        torch.testing.assert_close(
            moved.mean((2, 3)), clean.mean((2, 3)).flip(0), atol=1e-4, rtol=1e-3
        )
    else:
        assert loss > batch.loss
    # By hand: the layer's output replaced.
    handle = model.get_submodule(LAYER).register_forward_hook(lambda *_: moved)
    assert same(found, stock(model, inputs, samples))
    handle.remove()
    assert not same(found, stock(model, inputs, samples))


def test_random_starts_fill_the_ball():
    feature = torch.zeros(2, 3, 4, 4)
    attack = PGD(at='x', eps=0.5, steps=1, step_size=0.0, unit='absolute')
    attack.images = Images(['a', 'b'], [Region(0, 0, 4, 4)] * 2, 0)
    tail = Tail(lambda features, against=(): (0, [feature]), torch.Generator())
    (view,) = attack.views([feature], [feature], tail)
    draw = attack.images.draw(feature, 'linf', False)
    torch.testing.assert_close(view.features[0], 0.5 * draw)
    assert draw.abs().max() > 0.9


def test_attack_without_a_random_start_begins_at_the_clean_gradient():
    model, inputs, samples = made('segmentor')
    options = dict(at=LAYER, unit='absolute', steps=1, step_size=0.1, random_start=False)
    with Target(model, LAYER).open(inputs, samples) as batch:
        (moved,) = batch.attack(make_attack('pgd', 0.1, **options))
    expected = batch.features[0] + 0.1 * batch.gradients[0].sign()
    torch.testing.assert_close(moved, expected)


def test_several_tensors_at_a_place():
    model, inputs, samples = made('detector')
    attack = make_attack('pgd', 0.3, at='neck', unit='std', steps=2)
    with Target(model, 'neck').open(inputs, samples) as batch:
        features = batch.attack(attack)
        assert batch.loss_of(features, attack.against) > batch.loss
        found = batch.predict(features)
    handle = model.neck.register_forward_hook(
        lambda module, args, output: type(output)(
            [features[i] if i < len(features) else f for i, f in enumerate(output)]
        )
    )
    assert same(found, stock(model, inputs, samples))
    handle.remove()


def test_features_of_rois_have_no_place_in_a_prediction():
    model, inputs, samples = made('detector')
    at = 'roi_head.bbox_head.shared_fcs.1'
    with (
        Target(model, at).open(inputs, samples) as batch,
        pytest.raises(TapError, match='RoI heads'),
    ):
        batch.predict(batch.features)


def test_against_attacks_the_named_terms():
    model, inputs, samples = made('detector')
    grown = {}
    with Target(model, LAYER).open(inputs, samples) as batch:
        for word in ('cls', 'bbox'):
            attack = make_attack('pgd', 0.5, at=LAYER, unit='std', against=[word])
            features = batch.attack(attack)
            for measured in ('cls', 'bbox'):
                probe = make_attack('pgd', 0.5, at=LAYER, unit='std', against=[measured])
                before = batch.loss_of(batch.features, probe.against)
                grown[word, measured] = batch.loss_of(features, probe.against) / before
        wrong = make_attack('pgd', 0.5, at=LAYER, unit='std', against=['mask'])
        with pytest.raises(ValueError, match='mask'):
            batch.attack(wrong)
    assert grown['cls', 'cls'] > max(1.0, grown['bbox', 'cls'])
    assert grown['bbox', 'bbox'] > max(1.0, grown['cls', 'bbox'])


@pytest.mark.parametrize('at', ['inputs', LAYER])
def test_nothing_is_left_behind(case, at):
    model, inputs, samples = case
    for p in model.parameters():
        p.requires_grad_(p.dim() > 1)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [m.training for m in model.modules()]
    wanted = [p.requires_grad for p in model.parameters()]
    attributes = set(vars(model))
    before = stock(model, inputs, samples)
    streams = RandomState()
    unit = 'pixel' if at == 'inputs' else 'std'
    attack = make_attack('pgd', 1.0, at=at, unit=unit, steps=2)
    with Target(model, at).open(inputs, samples) as batch:
        batch.predict(batch.attack(attack))
    assert RandomState() == streams
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == flags
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(p.grad is None for p in model.parameters())
    assert set(vars(model)) == attributes
    assert not any('forward' in vars(m) for m in model.modules())
    assert same(before, stock(model, inputs, samples))


def test_draws_depend_on_seed_and_image_alone():
    regions = [Region(0, 0, 6, 5), Region(0, 0, 8, 8)]
    two = Images(['a', 'b'], regions, 0)
    images = torch.zeros(2, 3, 8, 8)
    draw = two.draw(images, 'linf', pixels=True)
    assert draw[0, :, 6:].eq(0).all()
    assert draw[0, :, :, 5:].eq(0).all()
    assert draw.abs().amax((1, 2, 3)).gt(0.9).all()
    turned = Images(['b', 'a'], regions[::-1], 0).draw(torch.zeros(2, 3, 9, 8), 'linf', True)
    assert torch.equal(turned[1, :, :8], draw[0])
    assert torch.equal(turned[0, :, :8], draw[1])
    boxed = Images(['a', 'b'], [Region(1, 2, 7, 7), regions[1]], 0)
    assert torch.equal(boxed.draw(images, 'linf', True)[0, :, 1:7, 2:7], draw[0, :, :6, :5])
    assert boxed.inside(images)[0].sum() == 30
    other = Images(['a', 'b'], regions, 1).draw(images, 'linf', pixels=True)
    assert not torch.equal(other, draw)
    # One draw for all where rows are no images.
    rows = two.draw(torch.zeros(5, 4), 'l2', pixels=False)
    assert rows.norm() <= 1


def test_batch_norms_and_dropout_rest_while_heads_train():
    model = build_segmentor()
    model.eval()
    with as_in_training(model):
        assert model.training
        assert model.decode_head.training
        assert not model.decode_head.dropout.training
        assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert not any(m.training for m in model.modules())


def test_padded_label_maps():
    model, inputs, samples = made('segmentor')
    samples[0].set_metainfo(dict(img_shape=(32, 64)))
    first, second = for_loss(samples, inputs, model)
    labels = first.gt_sem_seg.data
    assert labels.shape == (1, 64, 64)
    assert labels[:, 32:].eq(255).all()
    assert torch.equal(labels[:, :32], samples[0].gt_sem_seg.data[:, ::2])
    assert torch.equal(second.gt_sem_seg.data, samples[1].gt_sem_seg.data)


def test_missing_ground_truth_is_said():
    model, inputs, samples = made('segmentor')
    del samples[1].gt_sem_seg
    with (
        pytest.raises(ValueError, match='LoadAnnotations'),
        Target(model).open(inputs, samples),
    ):
        pass


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(attack='magic', at=LAYER), 'pgd'),
        (dict(attack='statistics', at='inputs'), 'name a layer'),
        (dict(attack='pgd', at=LAYER, unit='pixel'), 'elsewhere'),
        (dict(attack='pgd', at='inputs', unit='std'), 'elsewhere'),
        (dict(attack='pgd', at='inputs', norm='l7'), 'l7'),
        (dict(attack='pgd', at='inputs', steps=0), 'steps=0'),
        (dict(attack='swap', at=LAYER, eps=2.0), 'eps=2.0'),
        (dict(attack='swap', at=LAYER, steps=3), 'no steps'),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        make_attack(**{'eps': 1.0, **options})


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(eps=4), 'eps=4: give a list'),
        (dict(transfer='x.pth', flag_images=0), 'with flag_images=0'),
        (dict(transfer='x.pth', eps=[0]), 'a strength above 0'),
        (dict(transfer_config='x.py'), "transfer_config='x.py' without transfer"),
        (dict(at=LAYER, image_range=(0, 1)), "image_range=(0, 1) with unit='std'"),
        (dict(fp16=True), 'attacks are made in float32'),
        (dict(random_start='no'), "random_start='no': give True or False"),
    ],
)
def test_settings_of_the_loop_that_would_do_nothing(options, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        AdversarialTestLoop(None, None, None, **options)


def test_swap_needs_a_second_image():
    model, inputs, samples = made('segmentor', images=1)
    with (
        Target(model, LAYER).open(inputs, samples) as batch,
        pytest.raises(ValueError, match='batch_size=2'),
    ):
        batch.attack(make_attack('swap', 1.0, at=LAYER))


CONFIGS = {
    'faster-rcnn_r18_fpn_demo-coco': ('coco', 'coco/bbox_mAP', []),
    'deeplabv3plus_r18_demo-cityscapes': ('cityscapes', 'mIoU', []),
    'resnet18_demo-imagenet': ('imagenet', 'accuracy/top1', []),
}


def config_of(name, folder):
    cfg = Config.fromfile(ROOT / f'configs/demo/{name}.py')
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].dataset.data_root = f'{folder}/'
        cfg[loader].num_workers, cfg[loader].persistent_workers = 0, False
    if 'ann_file' in cfg.test_evaluator:
        cfg.test_evaluator.ann_file = f'{folder}/annotations/instances_val2017.json'
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == 'Resize' and 'imagenet' not in name:
            step.scale = (96, 64)
    return cfg


@pytest.mark.parametrize('name', list(CONFIGS))
def test_strength_0_is_the_stock_test(name, demo_data, tmp_path):
    layout, metric, _ = CONFIGS[name]
    if layout == 'imagenet':
        pytest.importorskip('mmpretrain')
    cfg = config_of(name, demo_data[layout])
    cfg.work_dir, cfg.log_level = str(tmp_path), 'ERROR'
    cfg.load_from = str(tmp_path / 'weights.pth')
    torch.save({'state_dict': build_from(name).state_dict()}, cfg.load_from)
    outputs = {}

    def tested(which, **loop):
        cfg.experiment_name = f'{name}_{which}_{tmp_path.name}'
        cfg.test_cfg = loop
        runner = Runner.from_cfg(cfg)
        process = runner.test_loop.evaluator.process
        outputs[which] = []

        def watch(data_samples, data_batch=None):
            outputs[which].append(predictions(data_samples))
            process(data_samples=data_samples, data_batch=data_batch)

        runner.test_loop.evaluator.process = watch
        return runner.test()

    plain = tested('stock')
    loop = dict(type='mmfeataug.AdversarialTestLoop', eps=[4.0, 0.0], steps=2, seed=3)
    ours = tested('ours', flag_images=0, **loop)
    assert metric in plain
    np.testing.assert_equal(ours, plain)
    count = len(outputs['stock'])
    for a, b in zip(outputs['ours'][count:], outputs['stock'], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    result = json.loads((tmp_path / 'adversarial.json').read_text())
    clean, attacked = result['curve']
    assert [p['eps'] for p in result['curve']] == [0.0, 4.0]
    undefined = {k for k, v in plain.items() if layout == 'coco' and v == -1}
    assert bool(undefined) == (layout == 'coco')
    expected = {k: None if k in undefined else pytest.approx(v) for k, v in plain.items()}
    assert clean['metrics'] == expected
    if layout != 'coco':  # Two long steps from random weights: other proposals, another loss.
        assert attacked['loss'] > clean['loss']
    assert result['unit'] == 'pixel'
    assert result['steps'] == 2
    assert '| eps (pixel, linf) |' in (tmp_path / 'adversarial.md').read_text()


def test_a_swap_is_refused_before_the_test_where_a_batch_has_one_image(demo_data, tmp_path):
    cfg = config_of('deeplabv3plus_r18_demo-cityscapes', demo_data['cityscapes'])
    cfg.work_dir, cfg.log_level, cfg.experiment_name = str(tmp_path), 'ERROR', tmp_path.name
    cfg.test_cfg = dict(type='mmfeataug.AdversarialTestLoop', attack='swap', at=LAYER, eps=[1.0])
    cfg.test_dataloader.batch_size, cfg.test_dataloader.dataset.indices = 2, [0, 1, 2]
    with pytest.raises(ValueError, match=r'batch_size=2 leaves a batch of one image \(3'):
        Runner.from_cfg(cfg).test()


def test_what_does_not_go_is_said_before_the_clean_test(segmentor_file, demo_data, tmp_path):
    """A checkpoint to transfer from that fits nothing; an attack that the model cannot be given;
    and what the checkpoint lacks, in the result.
    """
    cfg = config_of('deeplabv3plus_r18_demo-cityscapes', demo_data['cityscapes'])
    cfg.log_level, cfg.test_dataloader.dataset.indices = 'ERROR', [0, 1]
    weights = torch.load(segmentor_file)['state_dict']
    del weights['decode_head.conv_seg.weight']
    cfg.load_from = str(tmp_path / 'lacking.pth')
    torch.save({'state_dict': weights}, cfg.load_from)

    def tested(name, **settings):
        cfg.work_dir, cfg.experiment_name = str(tmp_path / name), f'{tmp_path.name}_{name}'
        cfg.test_cfg = dict(type='mmfeataug.AdversarialTestLoop', **{'flag_images': 0, **settings})
        Runner.from_cfg(cfg).test()

    with pytest.raises(ValueError, match='does not fit its config'):
        tested('transfer', eps=[0, 1], flag_images=1, transfer=cfg.load_from)
    with pytest.raises(ValueError, match='windows of slide inference'):
        cfg.model.test_cfg = dict(mode='slide', crop_size=(64, 64), stride=(32, 32))
        tested('slide', eps=[0, 1], steps=1, at=LAYER)
    cfg.model.test_cfg = dict(mode='whole')
    assert not list(tmp_path.glob('*/adversarial.*'))
    with pytest.warns(UserWarning, match='1 of .* tensors'):
        tested('lacks', eps=[0])
    result = json.loads((tmp_path / 'lacks/adversarial.json').read_text())
    assert 'tensors of the model are not in the checkpoint' in result['lacks']
    assert f'Note: {result["lacks"]}' in (tmp_path / 'lacks/adversarial.md').read_text()


def test_the_step_size_of_statistics_is_written_down(demo_data, tmp_path):
    cfg = config_of('deeplabv3plus_r18_demo-cityscapes', demo_data['cityscapes'])
    cfg.work_dir, cfg.log_level = str(tmp_path), 'ERROR'
    loop = dict(type='mmfeataug.AdversarialTestLoop', attack='statistics', at=LAYER, eps=[1.0])
    for given, kept in ((None, 0.2), (0, 0.0)):
        cfg.experiment_name = f'{tmp_path.name}_{given}'
        cfg.test_cfg = dict(loop, step_size=given)
        found = Runner.from_cfg(cfg).test_loop.settings['step_size']
        assert (found, type(found)) == (kept, float)


def test_a_loader_of_another_name_is_refused_before_the_clean_test(demo_data, tmp_path):
    cfg = config_of('deeplabv3plus_r18_demo-cityscapes', demo_data['cityscapes'])
    cfg.work_dir, cfg.log_level, cfg.experiment_name = str(tmp_path), 'ERROR', tmp_path.name
    cfg.test_cfg = dict(type='mmfeataug.CorruptionTestLoop', corruptions=['fog'], severities=[1])
    loader, *rest = cfg.test_dataloader.dataset.pipeline
    cfg.test_dataloader.dataset.pipeline = [dict(type='ReadTiff'), *rest]
    with pytest.raises(ValueError, match=r'CityscapesDataset .* no step named Load'):
        Runner.from_cfg(cfg).test()
    # Those of other names that load images, such as mmseg's for microscopes, are known.
    cfg.test_dataloader.dataset.pipeline = [dict(loader, type='LoadBiomedicalImageFromFile'), *rest]
    ((_, place, _),) = behind_loading(cfg.test_dataloader, 'mmseg')
    assert place == 1
    # Change detection has two images: the second would stay clean.
    cfg.test_dataloader.dataset.pipeline = [dict(type='LoadMultipleRSImageFromFile'), *rest]
    with pytest.raises(ValueError, match='loads two images for each sample'):
        list(behind_loading(cfg.test_dataloader, 'mmseg'))


def test_a_detector_that_finds_nothing_has_no_precision():
    """Whatever the order of strengths."""
    nothing, clean = {}, {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_l': -1.0}

    def curve(*points):
        return [dict(eps=eps, metrics=m, found=found) for eps, m, found in points]

    points = score(curve((0, nothing, 0), (1, clean, 3)), 'detection')
    assert [point['metrics'] for point in points] == [
        {'coco/bbox_mAP': 0.0, 'coco/bbox_mAP_l': None},
        {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_l': None},
    ]
    assert score(points, 'detection') == points
    later = score([*points, *curve((0.5, nothing, 0))], 'detection')
    assert [later[0], later[2]] == points
    assert later[1]['metrics'] == points[0]['metrics']
    points = score(curve((0, clean, 3), (1, nothing, 2)), 'detection')
    assert points[1]['metrics'] == {'coco/bbox_mAP': None, 'coco/bbox_mAP_l': None}
    # The first strength of a run that was killed, before anything is known.
    (first,) = score(curve((4, nothing, 0)), 'detection')
    assert first['metrics'] == {}
    assert score([first, *curve((0, clean, 3))], 'detection')[1]['metrics']['coco/bbox_mAP'] == 0.0


@pytest.fixture(scope='module')
def segmentor_file(tmp_path_factory):
    model = build_from('deeplabv3plus_r18_demo-cityscapes')
    path = tmp_path_factory.mktemp('adversarial') / 'weights.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return path


def build_from(name):
    from mmengine.registry import MODELS, init_default_scope

    cfg = Config.fromfile(ROOT / f'configs/demo/{name}.py')
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def test_tool(segmentor_file, demo_data, tmp_path):
    config = ROOT / 'configs/demo/deeplabv3plus_r18_demo-cityscapes.py'
    options = data_options(demo_data['cityscapes'])
    args = [config, segmentor_file, '--work-dir', tmp_path, '--out-dir', tmp_path / 'out']
    settings = ['--at', LAYER, '--eps', 0, 1, '--steps', 1, '--against', 'decode', '--norm', 'l2']
    tool = ROOT / 'tools/test_adversarial.py'
    # The frameworks' logs go elsewhere: what is printed is the result alone.
    keep = ['--save-predictions', '--flag-images', 0]
    printed = launch(tool, *args, *settings, *keep, '--json', '--cfg-options', *options)
    assert 'mmengine - INFO' in printed.stderr
    assert (tmp_path / 'out/adversarial.png').exists()
    assert not list(tmp_path.glob('*.py'))
    result = json.loads((tmp_path / 'out/adversarial.json').read_text())
    assert json.loads(printed.stdout) == result
    assert '| eps (std, l2) |' in (tmp_path / 'out/adversarial.md').read_text()
    assert result['task'] == 'segmentation'
    assert result['against'] == ['decode']
    assert result['checkpoint'] == str(segmentor_file)
    log = run('test_adversarial.py', *args, *settings, '--cfg-options', *options, ok=False)
    assert 'is there already: go on with it (--resume)' in log
    other = ['--resume', '--eps', 1, '--cfg-options', *options]
    log = run('test_adversarial.py', *args, *other, ok=False)
    assert 'another attack (at, norm, steps, against, unit)' in log
    assert result['curve'][1]['loss'] > result['curve'][0]['loss']
    # What is kept gives the figures again, without the model.
    for point in result['curve']:
        kept = read_predictions(tmp_path / f'out/predictions/eps_{point["eps"]:g}.pkl')
        evaluator = Runner.build_evaluator(None, Config.fromfile(config).test_evaluator)
        evaluator.dataset_meta = kept.dataset_meta
        assert evaluator.offline_evaluate(kept) == pytest.approx(point['metrics'], abs=1e-9)


def test_a_killed_attack_is_gone_on_with(segmentor_file, demo_data, tmp_path, monkeypatch):
    cfg = config_of('deeplabv3plus_r18_demo-cityscapes', demo_data['cityscapes'])
    cfg.work_dir, cfg.log_level, cfg.load_from = str(tmp_path), 'ERROR', str(segmentor_file)
    evaluate, evaluated = Evaluator.evaluate, []

    def tested(folder, eps, fails_at=None, **loop):
        def watch(self, size):
            if len(evaluated) == fails_at:
                raise KeyboardInterrupt
            evaluated.append(size)
            return evaluate(self, size)

        evaluated.clear()
        monkeypatch.setattr(Evaluator, 'evaluate', watch)
        cfg.experiment_name = f'killed_{tmp_path.name}'
        out_dir = tmp_path / folder
        cfg.test_cfg = dict(type='mmfeataug.AdversarialTestLoop', steps=2, eps=eps, **loop)
        cfg.test_cfg.update(out_dir=str(out_dir), flag_images=0)
        try:
            metrics = Runner.from_cfg(cfg).test()
        except KeyboardInterrupt:
            metrics = None
        return metrics, json.loads((out_dir / 'adversarial.json').read_text())

    tested('kept', [1, 2])
    # Predictions of what is asked for again; what is not stays.
    _, kept = tested('kept', [2], resume=True, save_predictions=True)
    assert len(evaluated) == 1
    assert [point['eps'] for point in kept['curve']] == [1, 2]
    tested('kept', [2], resume=True, save_predictions=True)
    assert not evaluated
    metrics, whole = tested('whole', [0, 2, 4])
    _, cut = tested('cut', [0, 4, 2], fails_at=1)
    assert [point['eps'] for point in cut['curve']] == [0]
    last, rest = tested('cut', [0, 2, 4], resume=True)
    assert len(evaluated) == 2
    assert rest == whole
    assert last == metrics
    again, more = tested('cut', [0, 1, 4], resume=True)
    assert len(evaluated) == 1
    assert again == metrics
    assert [point['eps'] for point in more['curve']] == [0, 1, 2, 4]
    cfg.model.test_cfg.mode = 'slide'
    with pytest.raises(ValueError, match=r'another text of the config .*Delete it to start anew'):
        tested('cut', [0, 8], resume=True)
    cfg.model.test_cfg.mode = 'whole'
    # The same file by another name.
    monkeypatch.chdir(segmentor_file.parent)
    cfg.load_from = segmentor_file.name
    tested('cut', [0, 4], resume=True)
    assert not evaluated
    cfg.test_dataloader.dataset.indices = 1
    with pytest.raises(ValueError, match='another text of the config'):
        tested('cut', [0, 4], resume=True)
    (tmp_path / 'cut/adversarial.json').write_text('{')
    with pytest.raises(ValueError, match='no JSON file'):
        tested('cut', [0, 4], resume=True)
    assert (tmp_path / 'cut/adversarial.png').exists()


def test_an_image_is_attacked_alike_in_any_batch():
    model, inputs, samples = made('classifier')
    attack = make_attack('pgd', 4.0, at='inputs', steps=3)
    target = Target(model)
    with target.open(inputs, samples) as batch:
        (both,) = batch.attack(attack)
    with target.open(inputs[1:], samples[1:]) as batch:
        (alone,) = batch.attack(attack)
    # Signs of gradients that are nearly 0 may differ.
    assert ((both[1:] - alone).abs() < 1e-4).float().mean() > 0.99


def test_surface_tool(segmentor_file, demo_data, tmp_path):
    from PIL import Image

    config = ROOT / 'configs/demo/deeplabv3plus_r18_demo-cityscapes.py'
    options = data_options(demo_data['cityscapes'])
    args = [config, segmentor_file, segmentor_file, '--names', 'a', 'b', '--at', LAYER]
    args += ['--points', 3, '--out', tmp_path / 'new' / 'surface.png', '--cfg-options', *options]
    run('analysis_tools/loss_surface.py', *args)
    assert Image.open(tmp_path / 'new' / 'surface.png').width > 1000
    log = run('analysis_tools/loss_surface.py', *args[:8], '--eps', 0, ok=False)
    assert '--eps 0: give a length above 0' in log


def test_surfaces_do_not_depend_on_the_checkpoints_before(
    segmentor_file, demo_data, tmp_path, monkeypatch
):
    """What one lacks keeps its first values, not those of the one before."""
    whole = torch.load(segmentor_file, weights_only=False)['state_dict']
    kept = {k: v for k, v in whole.items() if 'conv_seg' not in k}
    lacking = tmp_path / 'lacking.pth'
    torch.save(dict(state_dict=kept), lacking)
    for folder in ('tools', 'tools/analysis_tools'):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    tool, drawn = import_module('loss_surface'), []
    monkeypatch.setattr(tool, 'draw_surface', lambda surfaces, *_: drawn.append(surfaces))
    monkeypatch.setattr(tool, 'save', lambda figure, path: path)
    config = ROOT / 'configs/demo/deeplabv3plus_r18_demo-cityscapes.py'
    for before in ([segmentor_file], [lacking]):
        files = [*map(str, before), str(lacking)]
        args = [str(config), *files, '--names', 'before', 'last', '--at', LAYER, '--points', '3']
        options = ['randomness.seed=0', *data_options(demo_data['cityscapes'])]
        monkeypatch.setattr('sys.argv', ['loss_surface', *args, '--cfg-options', *options])
        torch.manual_seed(0)
        with pytest.warns(UserWarning, match='keep their first values'):
            tool.main()
    first, second = (surfaces['last'] for surfaces in drawn)
    assert np.array_equal(first, second)
    assert not np.array_equal(drawn[0]['before'], first)


@pytest.mark.parametrize('kind', ['detector', 'segmentor'])
def test_every_pass_is_in_training_mode(kind):
    """Heads compute another loss in evaluation; the attack climbs the one that was recorded."""
    model, inputs, samples = made(kind)
    head = model.rpn_head if kind == 'detector' else model.decode_head.conv_seg
    modes = []
    head.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    place = 'neck' if kind == 'detector' else LAYER
    with Target(model, place).open(inputs, samples) as batch:
        batch.attack(make_attack('pgd', 0.3, at=place, unit='std', steps=2))
        assert batch.total_at(batch.features) == pytest.approx(batch.loss)
    assert len(modes) > 3
    assert all(modes)
    assert not any(module.training for module in model.modules())
