# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Second batch norms beside the average of a model."""

import pytest
import torch
from mmengine.hooks import EMAHook, Hook

from tests.contract.test_4_auxiliary_bn import ADVBN, augmented
from tests.models import build_segmentor, deeplab_cfg
from tests.test_hooks.test_feature_aug_hook import Samples, make_runner

pytestmark = pytest.mark.methods
DRIVER = dict(type='mmfeataug.FeatureAugHook', clean_weight=0.5)
NORM = 'backbone.layer3.0.bn1'


class Look(Hook):
    """Keeps what is tested."""

    priority = 'VERY_LOW'

    def before_test_epoch(self, runner):
        self.tested = {k: v.clone() for k, v in runner.model.state_dict().items()}


def segmentor():
    cfg = deeplab_cfg()
    cfg['data_preprocessor']['size'] = (32, 32)
    return build_segmentor(augmented(cfg, ADVBN))


@pytest.mark.parametrize('buffers', [True, False])
def test_the_average_has_a_second_set_which_can_be_tested(tmp_path, buffers):
    average = dict(type='EMAHook', momentum=0.5, update_buffers=buffers)
    save = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4))
    runner = make_runner(
        tmp_path, DRIVER, by_iter=4, model=segmentor(), hooks=[average], default_hooks=save
    )
    start = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()
    ema = next(h for h in runner.hooks if isinstance(h, EMAHook)).ema_model.module.state_dict()
    second = [k for k in ema if k.startswith('aux_bn.') and k.endswith('.weight')]
    assert second
    assert any(not torch.equal(ema[k], start[k]) for k in second)
    checkpoint = torch.load(tmp_path / 'iter_4.pth', weights_only=False)
    # What is tested: mmengine saves the average in the place of the weights.
    saved = checkpoint['state_dict']
    for hooks, prefix in ((['mmfeataug.AuxiliaryBNHook'], 'aux_bn.'), ([], '')):
        look = Look()
        tester = make_runner(
            tmp_path,
            model=segmentor(),
            hooks=[average, *(dict(type=h) for h in hooks), look],
            load_from=str(tmp_path / 'iter_4.pth'),
            test_dataloader=dict(
                dataset=Samples(2),
                batch_size=1,
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='pseudo_collate'),
            ),
            test_cfg=dict(),
            test_evaluator=dict(type='DumpResults', out_file_path=str(tmp_path / 'out.pkl')),
        )
        tester.test()
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            expected = saved[f'{prefix}{NORM}.{name}']
            assert torch.equal(look.tested[f'{NORM}.{name}'], expected), name
