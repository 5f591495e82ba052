# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 8: what cannot work is refused, with the setting and the remedy."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed import fsdp

import mmfeataug
from mmfeataug.engine import TapError
from tests.contract.cases import afan
from tests.models import build_detector, build_segmentor, random_test_batch, step


@pytest.fixture(scope='module')
def detector():
    return build_detector()


@pytest.fixture(scope='module')
def segmentor():
    return build_segmentor()


class Labels(nn.Module):
    def forward(self, x):
        return (x > 0).long()


class TestPaths:
    def test_unknown_path_names_the_nearest(self, detector):
        with pytest.raises(TapError, match=r"at='backbone.layr2'.*Nearest: backbone.layer2"):
            mmfeataug.attach(detector, [afan('backbone.layr2')])
        assert 'loss' not in vars(detector)

    def test_a_path_that_counts_from_a_part(self, detector):
        with pytest.raises(TapError, match=r"at='layer2'.*Nearest: backbone.layer2; "):
            mmfeataug.attach(detector, [afan('layer2')])

    def test_what_is_like_nothing_has_no_remedy(self, detector):
        with pytest.raises(TapError, match="at='image'") as caught:
            mmfeataug.attach(detector, [afan('image')])
        assert caught.value.fix is None

    def test_unknown_child_names_the_children(self, detector):
        with pytest.raises(TapError, match=r"below 'backbone'.*backbone.conv1"):
            mmfeataug.attach(detector, [afan('backbone.stage_two')])

    def test_side(self, detector):
        for entry in (
            afan('backbone', side='out'),
            dict(type='MixStyle', at='backbone', side='out'),
            dict(type='FMA', at='backbone', side='out'),
        ):
            with pytest.raises(ValueError, match="side='out' at 'backbone': choose 'output' or"):
                mmfeataug.attach(detector, [entry])

    @pytest.mark.parametrize('at', ['roi_head.bbox_head.shared_fcs', 'roi_head'])
    def test_module_that_is_not_called(self, detector, at):
        batch = random_test_batch(detector)
        with (
            mmfeataug.attach(detector, [afan(at)]),
            pytest.raises(TapError, match=rf"at='{at}'.*was not called.*{at}\.") as caught,
        ):
            step(detector, batch)
        # Processes hand it on.
        assert pickle.loads(pickle.dumps(caught.value)).at == at

    @pytest.mark.parametrize(
        ('beside', 'message'),
        [
            (Labels, 'yields no floating-point tensor'),
            (nn.Identity, 'the training loss does not depend on'),
        ],
    )
    def test_module_without_a_use(self, beside, message):
        model = build_segmentor()
        model.beside = beside()
        model.backbone.register_forward_pre_hook(lambda _, args: (model.beside(args[0]), None)[1])
        with mmfeataug.attach(model, [afan('beside')]), pytest.raises(TapError, match=message):
            step(model, random_test_batch(model))


class TestSettings:
    @pytest.mark.parametrize(
        ('entry', 'message'),
        [
            (
                dict(type='AFAN', at='neck', gama=1.0),
                "AFAN has no setting 'gama': the nearest is g",
            ),
            (dict(type='MixStyle', at='neck', p=0.5), "MixStyle has no setting 'p': "),
            (dict(type='MixStyle', prob=0.5), "missing .*'at'"),
            (dict(type='MixStyle', at='neck', alpha='0.1'), "alpha='0.1' at 'neck': give a number"),
            (dict(type='AFAN', at='neck', against=7), "against=7 at 'neck': give a list"),
            # Text counts as true.
            (
                dict(type='AFAN', at='neck', random_start='no'),
                "random_start='no' at 'neck': give T",
            ),
            (
                dict(type='MixStyle', at='neck', as_view='False'),
                "as_view='False' at 'neck': give T",
            ),
            # A constructor that hands nothing on has its own settings alone.
            (dict(type='HRFPPlus', at='neck', as_view=True), "no setting 'as_view': it has at, so"),
            (dict(type='AdvBN', at='neck', relu='no'), "relu='no' at 'neck': give T"),
            (dict(type='AFAN', at='neck', reinject=['no']), "reinject='no' at 'neck': give T"),
            # What another constructor says is no setting of the method.
            (
                dict(type='FMA', at='neck', distortions=[dict(type='RandomGamma', gama=(1, 2))]),
                "RandomGamma.*unexpected keyword argument 'gama'",
            ),
        ],
    )
    def test_names(self, detector, entry, message):
        with pytest.raises(TypeError, match=message) as caught:
            mmfeataug.attach(detector, [entry])
        # An error that is its own cause would have no end.
        assert caught.value.__cause__ is not caught.value

    def test_one_flag_for_each_view(self, detector):
        entry = dict(type='AFAN', at='neck', strengths=[0.5, 1.0], reinject=[False, True])
        with mmfeataug.attach(detector, [entry]) as handle:
            assert handle.augmentations['afan'].reinject == (False, True)

    @pytest.mark.parametrize(
        ('settings', 'message'),
        [
            (dict(clean_weight=0.0), 'clean_weight=0.0 must be positive'),
            (dict(clean_weight=-1.0), 'clean_weight=-1.0'),
            (dict(clean_weight='0.5'), "clean_weight='0.5': give a finite number"),
            (dict(clean_weight=[1]), r'clean_weight=\[1\]: give a finite number'),
            (dict(seed=None), 'seed=None: give a whole number'),
            (dict(clean_weight=float('inf')), 'clean_weight=inf: give a finite number'),
        ],
    )
    def test_values(self, detector, settings, message):
        with pytest.raises((TypeError, ValueError), match=message):
            mmfeataug.attach(detector, [afan('backbone.layer2')], **settings)

    @pytest.mark.parametrize(
        ('entry', 'message'),
        [
            (dict(type='FMA', norm='l3'), "norm='l3' at 'backbone': choose one of mse"),
            (dict(type='AFAN', at=''), "at='': the model has no such module"),
        ],
    )
    def test_before_training(self, detector, entry, message):
        with pytest.raises(ValueError, match=message):
            mmfeataug.attach(detector, [entry])

    def test_numbers_of_numpy(self, detector):
        entry, numbers = afan('neck'), dict(clean_weight=np.float32(0.5), seed=np.int64(3))
        with mmfeataug.attach(detector, [entry], **numbers) as handle:
            assert handle.clean_weight == 0.5

    @pytest.mark.parametrize('augmentations', [dict(type='AFAN', at='x'), 'AFAN', 3])
    def test_augmentations_must_be_a_list(self, detector, augmentations):
        with pytest.raises(TypeError, match='augmentations must be a list'):
            mmfeataug.attach(detector, augmentations)

    def test_unknown_method(self, detector):
        with pytest.raises(KeyError, match='AFAM'):
            mmfeataug.attach(detector, [dict(type='AFAM', at='backbone.layer2')])

    def test_one_channel_names_the_tap(self, detector):
        batch = random_test_batch(detector)
        with (
            mmfeataug.attach(detector, [afan('rpn_head.rpn_cls', reinject=True, axes='spatial')]),
            pytest.raises(
                RuntimeError, match=r"rpn_head.rpn_cls.*axes='spatial' needs at least two values"
            ),
        ):
            step(detector, batch)


class TestModels:
    def test_checkpointing_of_fairscale(self):
        model = build_detector()
        model.backbone.num_cp = 2
        with pytest.raises(ValueError, match=r'num_cp in backbone.*set num_cp=-1'):
            mmfeataug.attach(model, [afan('backbone.layer2')])

    @pytest.mark.parametrize('shard', ['wrapper', 'fully_shard'])
    def test_fsdp(self, shard):
        """The real ones, on a process group of one."""
        model = self.toy()
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
        try:
            if shard == 'wrapper':
                model.mid = fsdp.FullyShardedDataParallel(model.mid, device_id=torch.device('cpu'))
            else:
                if not hasattr(fsdp, 'fully_shard'):
                    pytest.skip('this PyTorch has the wrapper only')
                mesh = torch.distributed.init_device_mesh('cpu', (1,))
                fsdp.fully_shard(model.mid, mesh=mesh)
            with pytest.raises(ValueError, match=r'mid is sharded by FSDP.*MMDistributedData'):
                mmfeataug.attach(model, [afan('stem')])
        finally:
            torch.distributed.destroy_process_group()

    @staticmethod
    def toy():
        return TestFallback().model('outer')

    def test_gradient_hook_of_a_parameter(self):
        model = build_segmentor()
        model.backbone.conv1.weight.register_hook(lambda g: g * 0.5)
        with pytest.raises(ValueError, match=r'conv1.weight has a gradient hook.*accumulate'):
            mmfeataug.attach(model, [afan('backbone.layer3')])

    def test_out_of_memory_is_not_taken_for_an_inexact_replay(self, segmentor, monkeypatch):
        def fail(*_, **__):
            raise torch.cuda.OutOfMemoryError('out of memory')

        batch = random_test_batch(segmentor)
        with mmfeataug.attach(segmentor, [afan('backbone.layer3')]):
            monkeypatch.setattr('mmfeataug.engine.exactness._deviation', fail)
            with pytest.raises(torch.cuda.OutOfMemoryError):
                step(segmentor, batch)

    def test_part_of_a_model(self, detector):
        with pytest.raises(TypeError, match=r'ResNet has no loss\(\)'):
            mmfeataug.attach(detector.backbone, [afan('layer2')])


class TestFallback:
    """Taps where recorded results are not enough."""

    def model(self, kind):
        class Toy(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.mid, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
                self.outer = Outer(self.mid)

            def loss(self, x, data_samples=None):
                stem = self.stem(x)
                if kind == 'inline':
                    # Changes the recorded output of the stem in place, each time it is returned.
                    out = self.head(self.mid(stem.clone()) + stem.mul_(2))
                else:
                    out = self.head(self.outer(stem) + stem)
                return {'loss': out.square().mean()}

            def parse_losses(self, losses):
                return sum(v.mean() for k, v in losses.items() if 'loss' in k), losses

        class Outer(nn.Module):
            """Calls a module that it does not contain."""

            def __init__(self, inner):
                super().__init__()
                self.inner = [inner]

            def forward(self, x):
                return self.inner[0](x) * 2

        torch.manual_seed(0)
        return Toy().train()

    @pytest.mark.parametrize('kind', ['inline', 'outer'])
    def test_it_is_exact(self, kind):
        x = torch.randn(3, 4)
        gradients = {}
        for memoize in (True, False):
            model = self.model(kind)
            with mmfeataug.attach(model, [afan('mid', gamma=0.1)]) as handle:
                if not memoize:
                    handle.taps[0].memoize, handle.taps[0].verified = False, True
                    gradients[memoize] = [step(model, (x,))[1] for _ in range(3)]
                elif kind == 'outer':
                    with pytest.warns(
                        UserWarning, match='mid.*called from inside Outer.*one more forward pass'
                    ):
                        gradients[memoize] = [step(model, (x,))[1] for _ in range(3)]
                else:
                    gradients[memoize] = [step(model, (x,))[1] for _ in range(3)]
                    # Copies of the records mend it from the second batch on.
                    assert handle.taps[0].memoize
        for fast, full in zip(gradients[True], gradients[False], strict=True):
            assert all(torch.allclose(fast[n], full[n], rtol=1e-6, atol=1e-8) for n in fast)

    def test_name_that_mmengine_would_add_up(self):
        class HardLoss(mmfeataug.methods.AFAN):
            pass

        with pytest.raises(ValueError, match=r"HardLoss is logged as 'hardloss'.*override"):
            mmfeataug.attach(self.model('outer'), [HardLoss(at='mid')])

    def test_strict_makes_it_an_error(self):
        model = self.model('outer')
        with (
            mmfeataug.attach(model, [afan('mid')], strict=True),
            pytest.raises(TapError, match='strict=False'),
        ):
            step(model, (torch.randn(3, 4),))
