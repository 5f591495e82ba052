# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What is said of a config without training it, and what mends it."""

import importlib.util
import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from mmfeataug.hooks import FeatureAugHook
from mmfeataug.hooks.trial import Trial
from mmfeataug.methods import AFAN
from mmfeataug.registry import AUGMENTATIONS
from tests.models import build_segmentor, deeplab_cfg, upernet_swin_cfg
from tests.test_hooks.test_feature_aug_hook import make_runner

ROOT = Path(__file__).resolve().parents[2]
HOOK = "custom_hooks = [dict(type='mmfeataug.FeatureAugHook', augmentations=[{}])]\n"
AT_LAYER2 = "dict(type='mmfeataug.AFAN', at='backbone.layer2', gamma=0.25{})"


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location(
        'check_tool', ROOT / 'tools/analysis_tools/check.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_average_counts_what_acts_without_views(tool):
    """2.5 stock steps with views, 1.5 without, in an iteration of the schedule."""
    for settings, prob, expected in (
        (dict(), 1.0, 2.5),
        (dict(), 0.5, 1.75),
        (dict(prob=0.2), 1.0, 1.7),
        (dict(interval=5, begin=50), 1.0, 1.35),
        (dict(budget=1.2), 1.0, 1.8),
    ):
        trial = Trial(cost=2.5, without_views=1.5, prob=prob, seconds=1.0, memory=(2**30, 2**30))
        hook = FeatureAugHook(**settings)
        said, _ = tool.measured(SimpleNamespace(trial=trial, hook=hook, iterations=100, epoch=10))
        assert f'{expected:.2f} on average' in said


def narrow():
    cfg = deeplab_cfg()
    cfg['backbone'] |= dict(stem_channels=8, base_channels=8)
    cfg['decode_head'] |= dict(in_channels=64, c1_in_channels=8)
    cfg['auxiliary_head'] |= dict(in_channels=32)
    return cfg


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'weights.pth'
    model = build_segmentor(narrow())
    # A trained head makes something of its features.
    model.decode_head.conv_seg.weight.data *= 300
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


@pytest.fixture
def check(tool, tmp_path, capsys, weights):
    base = tmp_path / 'base.py'
    base.write_text(
        f"default_scope = 'mmseg'\nmodel = {narrow()!r}\n"
        "train_dataloader = dict(batch_size=2, dataset=dict(type='CityscapesDataset',\n"
        "    data_root='nowhere'))\n"
        "train_cfg = dict(type='IterBasedTrainLoop', max_iters=100)\n"
        "optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))\n"
    )

    def run(text, name='config.py', ok=None):
        path = tmp_path / name
        path.write_text(f'_base_ = {str(base)!r}\nload_from = {str(weights)!r}\n{text}')
        return look(path, ok)

    def look(path, ok=None):
        status = 0
        try:
            tool.main([str(path), '--fix', '--json', '--size', '64', '64'])
        except SystemExit as end:
            status = end.code
        found = json.loads(capsys.readouterr().out)
        assert status == int(bool(found['errors']))
        assert ok is None or (status == 0) == ok, found
        return found

    def mended(found):
        path = tmp_path / 'mended.py'
        path.write_text('\n'.join(found['fixes']))
        return look(path)

    run.mended = mended
    return run


@AUGMENTATIONS.register_module()
class NamedLoss(AFAN):
    """A method whose name mmengine would add up."""


# Name: what is written into the config, its words in the list, and the line that mends it.
BROKEN = {
    'unknown place': (
        HOOK.format("dict(type='mmfeataug.AFAN', at=['backbone.layer1', 'backbone.layr2'])"),
        "at='backbone.layr2': the model has no such module. Nearest: backbone.layer2",
        "custom_hooks[0].augmentations[0].at = ['backbone.layer1', 'backbone.layer2']",
    ),
    'two hooks': (
        HOOK.format(AT_LAYER2.format(''))[:-2] + f', {HOOK.format(AT_LAYER2.format(""))[16:]}',
        'FeatureAugHook is there more than once',
        "custom_hooks[0].setdefault('augmentations', []).extend(",
    ),
    'begin beyond the end': (
        HOOK.format(AT_LAYER2.format('')).replace('augmentations', 'begin=500, augmentations'),
        'begin=500 with by_epoch=False: training ends at 100 iterations',
        'custom_hooks[0].begin = 0',
    ),
    'sharded': (
        HOOK.format(AT_LAYER2.format(''))
        + "model_wrapper_cfg = dict(type='MMFullyShardedDataParallel')\n",
        'model_wrapper MMFullyShardedDataParallel: sharded models allow no backward pass',
        "model_wrapper_cfg = {'type': 'MMDistributedDataParallel'}",
    ),
    'weights': (
        HOOK.format(AT_LAYER2.format(', weight=1.0')),
        'the weights of the views sum to 1 (afan: 1), which leaves nothing',
        'custom_hooks[0].augmentations[0].weight = None',
    ),
    'name': (
        HOOK.format("dict(type='NamedLoss', at='backbone.layer2')"),
        "NamedLoss is logged as 'namedloss': mmengine adds up",
        '',
    ),
    'no second norms': (
        HOOK.format("dict(type='mmfeataug.AdvBN', at='backbone.layer2', bn='separate')"),
        "bn='separate', but backbone.layer3",
        "model.update(type='mmfeataug.AugmentedModel', of=_base_.model.type",
    ),
    'never called': (
        # A pattern for two places.
        HOOK.format("dict(type='mmfeataug.AFAN', at='decode_head.[bl]*[ks]')")
        + f'model = {dict(_delete_=True, **upernet_swin_cfg())!r}\n',
        "at='decode_head.lateral_convs': this module was not called in the training pass",
        "augmentations[0].at = ['decode_head.bottleneck', 'decode_head.lateral_convs.0']",
    ),
    'layer never called': (
        HOOK.format(
            "dict(type='mmfeataug.AFAN', at='backbone.stages.0'), "
            "dict(type='mmfeataug.MixStyle', at='decode_head.lateral_convs')"
        )
        + f'model = {dict(_delete_=True, **upernet_swin_cfg())!r}\n',
        "at='decode_head.lateral_convs': this module was not called in the training pass",
        '',
    ),
    'one image for a mixture': (
        HOOK.format("dict(type='mmfeataug.MixStyle', at='backbone.layer1', as_view=True, prob=1.0)")
        + 'train_dataloader = dict(batch_size=1)\nmodel = dict(decode_head=dict(norm_cfg=None))\n',
        'at least 2 samples in a batch',
        'train_dataloader.batch_size = 2',
    ),
    'one value for a norm': (
        HOOK.format(AT_LAYER2.format('')) + 'train_dataloader = dict(batch_size=1)\n',
        'a stock step fails: ValueError: Expected more than 1 value per channel',
        'train_dataloader.batch_size = 2',
    ),
    'compiled': (
        HOOK.format(AT_LAYER2.format('')) + 'compile = True\n',
        'compile is set',
        'compile = False',
    ),
    'setting': (
        HOOK.format(AT_LAYER2.format('')).replace('augmentations', 'interval=0, augmentations'),
        'interval=0: give a whole number of at least 1',
        '',
    ),
}


# Those whose lines are more than a value at the top.
LOOKED_AT_AGAIN = 'unknown place', 'two hooks', 'no second norms', 'never called', 'sharded'


@pytest.mark.parametrize('name', BROKEN)
def test_broken(name, check):
    text, words, line = BROKEN[name]
    found = check(text, ok=False)
    assert words in found['errors'][-1 if name == 'one value for a norm' else 0]
    assert len(found['errors']) == 1
    assert bool(found['fixes']) == bool(line)
    if line:
        assert any(line in fix for fix in found['fixes'])
        if name in LOOKED_AT_AGAIN:
            assert check.mended(found)['errors'] == []


UNWISE = {
    'near': (
        HOOK.format(AT_LAYER2.format('').replace('0.25', '0.001')),
        'nearly the clean features',
        'custom_hooks[0].augmentations[0].gamma = ',
    ),
    'one process less': (
        "model = dict(type='mmfeataug.AugmentedModel', of='EncoderDecoder', augmentations=[\n"
        "    dict(type='mmfeataug.AdvBN', at='backbone.layer2', bn='separate')])\n"
        "custom_hooks = [dict(type='mmfeataug.FeatureAugHook')]\n",
        'with several processes, ',
        'find_unused_parameters = True',
    ),
    'idle': (
        HOOK.format(AT_LAYER2.format('').replace('0.25', '1e36')),
        'afan at backbone.layer2: nothing of this batch could be trained on',
        '',
    ),
    'hardly any views': (
        HOOK.format(AT_LAYER2.format('')).replace('augmentations', 'prob=1e-4, augmentations'),
        'views in 0.01% of the iterations (about 0 of 100',
        '',
    ),
    'a long warm-up': (
        HOOK.format(AT_LAYER2.format('')).replace('augmentations', 'warmup=500, augmentations'),
        'the weights of the views grow to 20% only: warmup is longer than the training',
        '',
    ),
    'off': (
        HOOK.format(AT_LAYER2.format('').replace('0.25', '0.0')),
        'afan at backbone.layer2: a strength or weight of 0 makes its effect vanish (gamma=0.0)',
        '',
    ),
}


@pytest.mark.parametrize('name', UNWISE)
def test_unwise(name, check):
    text, words, line = UNWISE[name]
    found = check(text, ok=True)
    assert words in found['warnings'][0]
    if line:
        assert any(line in fix for fix in found['fixes'])
        assert not any(words in warning for warning in check.mended(found)['warnings'])


def test_everything_in_one_list(check):
    entries = (
        "dict(type='mmfeataug.AFAN', at='backbone.layr2'), dict(type='mmfeataug.AFAM', at='x')"
    )
    text = HOOK.format(entries).replace('augmentations', 'begin=500, augmentations')
    found = check(text + 'compile = True\n', ok=False)
    assert len(found['errors']) == 4


def test_a_config_that_is_fine(check):
    found = check(HOOK.format(AT_LAYER2.format('')), ok=True)
    assert found['errors'] == found['warnings'] == found['fixes'] == []
    assert found['cost'] > 1
    assert "data_root='nowhere' is no folder" in found['notes'][0]
    assert not any('random' in note for note in found['notes'])


def test_settings_that_mmengine_or_the_length_of_an_epoch_decide(check):
    """A priority belongs to any hook; without data nobody knows how long an epoch is."""
    settings = "priority='LOW', begin=1, by_epoch=True, augmentations"
    found = check(HOOK.format(AT_LAYER2.format('')).replace('augmentations', settings), ok=True)
    assert found['errors'] == found['warnings'] == []
    assert any(note.startswith('by_epoch=True: how long an epoch is') for note in found['notes'])


def test_the_batch_is_tried_in_the_precision_of_the_training(check, monkeypatch):
    seen = set()

    class Narrow(OptimWrapper):
        @contextmanager
        def optim_context(self, model):
            seen.add(type(model).__name__)
            with super().optim_context(model):
                yield

    OPTIM_WRAPPERS.register_module(name='Narrow', module=Narrow, force=True)
    text = "optim_wrapper = dict(type='mmengine.Narrow')\n"
    check(HOOK.format(AT_LAYER2.format('')) + text, ok=True)
    assert seen == {'EncoderDecoder'}


def test_no_image(tool, tmp_path, capsys):
    """mmengine says that it needs an array to concatenate."""
    (tmp_path / 'images').mkdir()
    config = tmp_path / 'config.py'
    dataset = dict(type='BaseSegDataset', data_prefix=dict(img_path='images'), pipeline=[])
    config.write_text(
        f"default_scope = 'mmseg'\nmodel = {narrow()!r}\n"
        f'train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict({dataset!r},\n'
        f'    data_root={str(tmp_path)!r}, metainfo=dict(classes=["a"])),\n'
        "    sampler=dict(type='DefaultSampler'))\n"
        "train_cfg = dict(type='IterBasedTrainLoop', max_iters=100)\n"
        "optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))\n"
        + HOOK.format(AT_LAYER2.format(''))
    )
    with pytest.raises(SystemExit):
        tool.main([str(config), '--json'])
    (error,) = json.loads(capsys.readouterr().out)['errors']
    assert error.startswith('the training set has no image: look at data_root')


def test_nothing_to_check(check):
    assert 'nothing in this config augments features' in check('', ok=True)['warnings'][0]


def test_data_that_cannot_be_read(check, tmp_path):
    """The folder is there, the images are not."""
    data = f"data_root={str(tmp_path)!r}, data_prefix=dict(img_path='a', seg_map_path='b')"
    found = check(
        f'train_dataloader = dict(dataset=dict({data}))\n' + HOOK.format(AT_LAYER2.format(''))
    )
    assert any('the training data cannot be read' in message for message in found['warnings'])


def test_two_bases_with_hooks(tool, tmp_path):
    for name in ('one', 'two'):
        (tmp_path / f'{name}.py').write_text('custom_hooks = []')
    config = tmp_path / 'both.py'
    config.write_text("_base_ = ['./one.py', './two.py']")
    with pytest.raises(SystemExit, match=r'let the baseline be the only base'):
        tool.main([str(config)])


def test_the_hook_says_it_before_training(tmp_path, monkeypatch):
    runner = make_runner(
        tmp_path,
        FeatureAugHook([dict(type='mmfeataug.AFAN', at='backbone.layer3', gamma=0)]),
        by_iter=1,
    )
    said = []
    monkeypatch.setattr(runner.logger, 'warning', lambda text, *args: said.append(text % args))
    runner.train()
    assert any('a strength or weight of 0 makes its effect vanish' in message for message in said)


def test_weights_that_timm_would_fetch_are_left_out(tool):
    """``pretrained=None`` is none of its values."""
    cfg = Config(dict(model=dict(backbone=dict(type='TIMMBackbone', pretrained=True))))
    notes = []
    tool.known_weights(cfg, notes)
    assert cfg.model.backbone.pretrained is False
    assert 'pre-trained weights are not there' in notes[0]
