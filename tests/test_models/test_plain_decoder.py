# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The plain decoder: its size, its parts, and that it is entered as mmseg's is."""

import torch

import mmfeataug
from tests.models import build_segmentor, deeplab_cfg, random_test_batch, step


def cfg(**settings):
    found = deeplab_cfg()
    found['decode_head'].update(type='mmfeataug.PlainDeepLabV3PlusHead', **settings)
    return found


def test_size():
    """16.25 million parameters: each convolution by its sizes, a batch norm of two values a
    channel behind each but the classifier."""
    from mmseg.registry import MODELS

    head = MODELS.build(
        dict(
            type='mmfeataug.PlainDeepLabV3PlusHead',
            in_channels=2048,
            channels=256,
            c1_in_channels=256,
            c1_channels=48,
            dilations=(1, 6, 12, 18),
            num_classes=21,
            norm_cfg=dict(type='BN'),
        )
    )
    pyramid = 2 * 2048 * 256 + 3 * 9 * 2048 * 256 + 5 * 512
    project = 5 * 256 * 256 + 512
    decoder = 256 * 48 + 96 + 9 * (256 + 48) * 256 + 512
    expected = pyramid + project + decoder + 256 * 21 + 21
    assert expected == 16_253_813
    assert sum(p.numel() for p in head.parameters()) == expected
    assert all(m.groups == 1 for m in head.modules() if isinstance(m, torch.nn.Conv2d))


def test_dropout_is_behind_the_pyramid():
    """Single values of it are dropped, and the classifier sees all of what comes before it."""
    model = build_segmentor(cfg(dropout_ratio=0.5))
    head, seen = model.decode_head, {}
    for name in ('bottleneck', 'sep_bottleneck', 'conv_seg'):
        head.get_submodule(name).register_forward_hook(
            lambda m, args, out, name=name: seen.update({name: (args[0], out)})
        )
    torch.nn.init.constant_(head.bottleneck[0].bn.bias, 9.0)  # Nothing is 0 by the ReLU.
    step(model, random_test_batch(model))
    off = (seen['bottleneck'][1] == 0).float()
    assert 0.4 < float(off.mean()) < 0.6
    assert float(off.mean((2, 3)).std()) < 0.3  # No channel as a whole.
    assert torch.equal(seen['conv_seg'][0], seen['sep_bottleneck'][1])


def test_views_at_both_places_of_the_decoder():
    model = build_segmentor(cfg())
    settings = dict(unit='absolute', gamma=0.1, learn='skips')
    entries = [
        dict(type='mmfeataug.AFAN', at='decode_head.bottleneck', **settings),
        dict(
            type='mmfeataug.AFAN',
            at='decode_head.sep_bottleneck',
            side='input',
            **settings,
        ),
    ]
    with mmfeataug.attach(model, entries, strict=True):
        losses, gradients = step(model, random_test_batch(model))
    assert float(losses['afan.linf']) > 0.09
    assert float(losses['afan2.linf']) > 0.09
    assert all(g.isfinite().all() for g in gradients.values() if g is not None)
