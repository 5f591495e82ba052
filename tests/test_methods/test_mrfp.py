# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""MRFP against a branch of PyTorch's own modules, and HRFP+ in a segmentor."""

import collections
import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import skip_init

import mmfeataug
from mmfeataug.methods import MRFP, HRFPPlus, NormalizationPerturbation
from mmfeataug.methods.mrfp import decode, encode
from tests.models import (
    build_segmentor,
    deeplab_cfg,
    random_test_batch,
    relative_difference,
    step,
)
from tests.oracle import Unmoved, double_precision

pytestmark = pytest.mark.methods


def block(width_in, width_out, dilation, **resize):
    """As the release makes and draws one; nothing else is drawn."""
    conv = skip_init(nn.Conv2d, width_in, width_out, 3, padding=dilation, dilation=dilation)
    norm = nn.BatchNorm2d(width_out)
    nn.init.kaiming_normal_(conv.weight, nonlinearity='relu')
    nn.init.zeros_(conv.bias)
    nn.init.normal_(norm.weight, 0, 0.5)
    return nn.Sequential(conv, nn.Upsample(**resize), norm, nn.ReLU())


def encoder(c, h, w, width):
    return nn.Sequential(
        block(c, c, 1, scale_factor=1.205),
        block(c, c, 1, scale_factor=1.2),
        block(c, 2 * c, 2, scale_factor=1.2),
        block(2 * c, width, 2, size=(2 * h, 2 * w)),
    )


def decoder(c, h, w):
    return nn.Sequential(
        block(4 * c, 2 * c, 1, size=(2 * h, 2 * w)),
        block(2 * c, c, 1, scale_factor=0.838),
        block(c, c, 2, scale_factor=0.798),
        block(c, c, 2, size=(h, w)),
    )


@pytest.mark.parametrize('shape', [(3, 8, 13, 17), (2, 4, 2, 2), (1, 4, 2, 3)])
def test_branch_is_that_of_modules(shape):
    """Sizes, dilations, order within a layer, distributions: values and gradients."""
    _, c, h, w = shape
    ours, theirs = (torch.randn(shape).requires_grad_() for _ in range(2))
    theirs.data.copy_(ours.data)
    torch.manual_seed(1)
    code = encode(ours)
    found = decode(code, ours)
    torch.manual_seed(1)
    parts = encoder(c, h, w, 4 * c), decoder(c, h, w)
    encoding = parts[0](theirs)
    expected = parts[1](encoding)
    torch.testing.assert_close(code, encoding, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    weights = torch.randn(shape)
    grads = [torch.autograd.grad(y, x, weights)[0] for y, x in ((found, ours), (expected, theirs))]
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-3)


def test_both_parts_read_the_clean_feature():
    x = torch.randn(4, 6, 7, 9)
    torch.manual_seed(2)
    found = MRFP(at='x', prob=1.0).transform(x)
    torch.manual_seed(2)
    torch.rand(2)
    styled = NormalizationPerturbation(at='x', plus=True).transform(x)
    code = encoder(6, 7, 9, 24)(x)
    noise = decoder(6, 7, 9)(code)
    torch.testing.assert_close(found, styled + noise, rtol=1e-4, atol=1e-4)


def test_parts_are_drawn_independently(monkeypatch):
    import mmfeataug.methods.mrfp as module

    monkeypatch.setattr(module, 'encode', lambda x: x)
    monkeypatch.setattr(module, 'decode', lambda code, like: torch.full_like(like, 10.0))
    method = MRFP(at='x', prob=0.3)
    method._style.transform = lambda x: x + 1
    x, draws = torch.zeros(2, 1, 2, 2), 4000
    torch.manual_seed(0)
    seen = collections.Counter(float(method.apply(x).amax()) for _ in range(draws))
    for value, share in {0.0: 0.49, 10.0: 0.21, 1.0: 0.21, 11.0: 0.09}.items():
        assert seen[value] / draws == pytest.approx(share, abs=0.025)
    assert MRFP(at='x').prob == HRFPPlus(at='x').prob == 0.5
    assert not MRFP(at='x', prob=0).active


@pytest.mark.parametrize('shape', [(4, 9, 6), (4, 6), (4, 6, 1, 8)])
def test_what_is_no_map(shape):
    for method in (MRFP(at='x', prob=1.0), HRFPPlus(at='x', prob=1.0)):
        with pytest.raises(ValueError, match=r"at 'x' needs maps .*'backbone.maxpool'"):
            method.apply(torch.randn(shape))


def test_batch_of_one():
    with pytest.raises(ValueError, match=r'at least 2 samples'):
        MRFP(at='x', prob=1.0).apply(torch.randn(1, 4, 8, 8))


PLUS = [
    dict(type='mmfeataug.MRFP', at='backbone.maxpool', prob=1.0),
    dict(type='mmfeataug.NormalizationPerturbation', at='backbone.layer1', plus=True, prob=1.0),
    dict(type='mmfeataug.HRFPPlus', at='decode_head.conv_seg', side='input', prob=1.0),
]


def declared(*entries):
    cfg = deeplab_cfg()
    return build_segmentor(
        dict(cfg, type='mmfeataug.AugmentedModel', of=cfg['type'], augmentations=list(entries))
    )


def test_mrfp_plus_trains_and_is_the_identity_in_evaluation():
    model, stock = declared(*PLUS), build_segmentor()
    assert type(model) is type(stock)
    model.load_state_dict(stock.state_dict(), strict=True)
    batch = random_test_batch(stock)
    assert list(model.state_dict()) == list(stock.state_dict())
    ours, theirs = (step(m, batch, seed=0)[1] for m in (model, stock))
    assert relative_difference(ours, theirs) > 1e-3
    assert all(g.isfinite().all() for g in ours.values() if g is not None)
    # A copy between steps, as an EMAHook's; the feature of the last step is no part of it.
    twin = copy.deepcopy(model)
    pickle.dumps(model.state_dict())
    assert relative_difference(step(twin, batch, seed=0)[1], theirs) > 1e-3
    for m in (model, stock):
        m.load_state_dict(build_segmentor().state_dict())
        m.eval()
    with torch.no_grad():
        assert torch.equal(model(batch[0], mode='tensor'), stock(batch[0], mode='tensor'))


def test_hrfp_plus_adds_an_encoding_of_the_stem():
    model = declared(PLUS[2])
    seen = {}
    model.backbone.maxpool.register_forward_hook(lambda m, a, out: seen.update(stem=out))
    head = model.decode_head
    head.sep_bottleneck.register_forward_hook(lambda m, a, out: seen.update(clean=out.clone()))
    head.conv_seg.register_forward_pre_hook(lambda m, a: seen.update(changed=a[0]))
    head.dropout.p = 0.0
    torch.manual_seed(3)
    model.loss(*random_test_batch(model))
    stem, noise = seen['stem'], seen['changed'] - seen['clean']
    assert noise.grad_fn is not None
    # Something of the encoding reaches every pixel's neighbourhood, and it cannot be negative.
    assert noise.min() > -1e-5
    assert (noise > 1e-3).any(1).float().mean() > 0.9
    assert torch.autograd.grad(noise.sum(), stem, retain_graph=True)[0].abs().max() > 0


def test_hrfp_plus_reads_the_stem_before_mrfp_changes_it(monkeypatch):
    import mmfeataug.methods.mrfp as module

    read, seen = module.encode, {}
    monkeypatch.setattr(
        module, 'encode', lambda x, *channels: seen.update(read=x.clone()) or read(x, *channels)
    )
    model = declared(*PLUS)
    keep = dict(prepend=True)
    model.backbone.maxpool.register_forward_hook(lambda m, a, out: seen.update(stem=out), **keep)
    model.loss(*random_test_batch(model))
    assert torch.equal(seen['read'], seen['stem'])


@pytest.mark.parametrize(
    ('at', 'learn', 'share'),
    [
        ('backbone.layer2', 'network', 1.0),
        ('decode_head.bottleneck', 'tail', 0.5),
        # What reaches the stem through the encoding alone is the clean loss's.
        ('decode_head.bottleneck', 'network', None),
    ],
)
def test_views_beside_mrfp_plus_meet_its_draws(at, learn, share):
    """Replays from before and behind the stem's last run: same loss, gradients in their shares."""
    with double_precision():
        model = declared(*PLUS).double()
        images, samples = random_test_batch(model)
        batch = images.double(), samples
        plain = step(copy.deepcopy(model), batch, seed=0)[1]
        view = Unmoved(at=at, weight=0.5, bn='frozen', learn=learn)
        with mmfeataug.attach(model, [view], clean_weight=0.5, strict=True):
            losses, found = step(model, batch, seed=0)
    clean = {k: v for k, v in losses.items() if not k.startswith(('unmoved', 'feature_'))}
    assert torch.equal(losses['unmoved.loss_0'], model.parse_losses(clean)[0].detach())
    assert found['backbone.conv1.weight'].isfinite().all()
    if share:
        for name, factor in {
            'backbone.conv1.weight': share,
            'decode_head.conv_seg.weight': 1,
        }.items():
            torch.testing.assert_close(found[name], factor * plain[name])


def test_a_hook_cannot_drive_hrfp_plus():
    with pytest.raises(ValueError, match=r'layer: declare it by mmfeataug.AugmentedModel'):
        mmfeataug.attach(build_segmentor(), [PLUS[2]])


def test_source_must_run_before():
    model = declared({**PLUS[2], 'source': 'decode_head.conv_seg'})
    with pytest.raises(ValueError, match=r"source='decode_head.conv_seg': it has not run before"):
        model.loss(*random_test_batch(model))
