# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A process that is killed in the middle of an iteration loses nothing: tools/train.py --resume
ends at the same weights, to the bit."""

import json
import re
import signal
from pathlib import Path

import pytest
import torch

from tests.contract.cases import DETECTOR_METHODS
from tests.contract.test_1_stock_outside import assert_same
from tests.launch import launch
from tests.test_tools import DETECTION, ROOT, SEGMENTATION, data_options

pytestmark = pytest.mark.methods

BASELINE = ROOT / 'configs/demo/deeplabv3plus_r18_demo-cityscapes.py'

CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['tests.bomb'], allow_failed_imports=False)
augmentations = [
    dict(
        type='mmfeataug.Bomb', at={at!r}, strengths=(0.5, 1.0), weight=0.2, gamma=0.02,
        random_start=True, bn={bn!r},
    ),
    dict(type='mmfeataug.AdvBN', at='backbone.layer1', bn={bn!r}, steps=2, weight=0.2),
]
model = dict(type='mmfeataug.AugmentedModel', of={of!r}, augmentations=augmentations)
custom_hooks = [
    dict(type='mmfeataug.IterationSeedHook'),
    dict(
        type='mmfeataug.FeatureAugHook', clean_weight=0.5, begin=1, warmup=4, prob=0.8,
        augmentations={more!r},
    ),
]
"""


def train(config, work_dir, options, *flags, bomb=''):
    command = [ROOT / 'tools/train.py', config, '--work-dir', work_dir, *flags, '--cfg-options']
    return launch(*command, 'randomness.seed=7', *options, env={'BOMB': bomb})


def both_sets_can_be_tested(config, work_dir, options):
    """With second batch norms: they have learnt, either set is tested, on corrupted images too, and
    either is exported to a checkpoint that the stock model's config and mmseg's own tool read."""
    import mmseg

    stock_tool = Path(mmseg.__file__).parent / '.mim/tools/test.py'
    checkpoint = (work_dir / 'last_checkpoint').read_text()
    weights = torch.load(checkpoint, weights_only=False)['state_dict']
    second = {k: v for k, v in weights.items() if k.startswith('aux_bn.')}
    assert second
    assert any(not torch.equal(v, weights[k.removeprefix('aux_bn.')]) for k, v in second.items())
    found = {}
    for flags in ((), ('--aux-bn',)):
        stock = work_dir / f'stock{len(flags)}.pth'
        tool('model_converters/to_stock.py', checkpoint, stock, *flags)
        exported = torch.load(stock)['state_dict']
        assert exported.keys() == weights.keys() - second.keys()
        at = ['--work-dir', work_dir / 'test', '--cfg-options', *options]
        scores = [
            tool('test.py', config, checkpoint, *flags, *at),
            tool(stock_tool, BASELINE, stock, *at),
        ]
        noise = ['--corruptions', 'gaussian_noise', '--severities', '1']
        out = work_dir / f'robustness{len(flags)}'
        tool('test_robustness.py', config, checkpoint, *flags, *noise, '--out-dir', out, *at)
        table = json.loads((out / 'robustness.json').read_text())
        scores = [line for log in scores for line in re.findall('aAcc: [^ ]*  mIoU: [^ ]*', log)]
        assert len(scores) == 2
        assert scores[0] == scores[1]
        accuracy = float(re.match(r'aAcc: (\S+)', scores[0])[1])
        assert table['clean']['aAcc'] == pytest.approx(accuracy, abs=0.01)
        found[flags] = exported
    key = next(iter(second)).removeprefix('aux_bn.')
    assert torch.equal(found[()][key], weights[key])
    assert torch.equal(found['--aux-bn',][key], weights[f'aux_bn.{key}'])


def tool(script, *args):
    result = launch(ROOT / 'tools' / script, *args)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout + result.stderr


@pytest.mark.parametrize(
    ('base', 'at', 'layout', 'how', 'options'),
    [
        (
            SEGMENTATION,
            'backbone.layer3',
            'cityscapes',
            'SIGKILL',
            [
                'train_cfg.max_iters=8',
                'default_hooks.checkpoint.interval=3',
                'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
                'model.data_preprocessor.size=(64,64)',
            ],
        ),
        pytest.param(
            *(DETECTION, 'backbone.layer2', 'coco', 'SIGTERM', ['train_cfg.max_epochs=4']),
            marks=pytest.mark.slow,
        ),
    ],
    ids=['segmentation-SIGKILL', 'detection-SIGTERM'],
)
def test_killed_and_resumed_is_uninterrupted(demo_data, tmp_path, base, at, layout, how, options):
    """Schedule, warm-up, random application, random start, dropout, samplers of boxes and random
    transforms included; with a validation in between."""
    config = tmp_path / 'config.py'
    of, bn = ('EncoderDecoder', 'separate') if layout == 'cityscapes' else ('FasterRCNN', 'shared')
    more = {
        'cityscapes': [
            dict(type='mmfeataug.MixStyle', at='backbone.layer1'),
            dict(type='mmfeataug.FMA'),
            dict(type='mmfeataug.SeA', at='decode_head.conv_seg', weight=0.2),
        ],
        'coco': [{**DETECTOR_METHODS[0], 'weight': 0.2}, *DETECTOR_METHODS[1:]],
    }[layout]
    config.write_text(CONFIG.format(base=str(base), at=at, of=of, bn=bn, more=more))
    options = [*data_options(demo_data[layout]), 'train_cfg.val_interval=2', *options]
    if layout == 'coco':
        annotations = f'{demo_data[layout]}/annotations/instances_val2017.json'
        options += [f'{e}.ann_file={annotations}' for e in ('val_evaluator', 'test_evaluator')]
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    result = train(config, whole, options)
    assert result.returncode == 0, result.stderr[-3000:]
    killed = train(config, cut, options, bomb=f'{how}:4')
    assert killed.returncode == -getattr(signal, how), killed.stderr[-3000:]
    result = train(config, cut, options, '--resume')
    assert result.returncode == 0, result.stderr[-3000:]
    assert 'resumed epoch' in result.stdout + result.stderr
    mine, theirs = (
        torch.load((d / 'last_checkpoint').read_text(), weights_only=False) for d in (cut, whole)
    )
    assert mine['meta']['iter'] == theirs['meta']['iter']
    assert_same(mine['state_dict'], theirs['state_dict'])
    if bn == 'separate':
        both_sets_can_be_tested(config, cut, options)
    for a, b in zip(
        mine['optimizer']['state'].values(), theirs['optimizer']['state'].values(), strict=True
    ):
        assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)
