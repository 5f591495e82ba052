# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What is compared: test beds, arms, and studies of them."""

from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from mmengine.config import Config as File

from mmfeataug.utils.distortions import DISTORTIONS

Config = dict[str, Any]
BLOCKS = Path(__file__).resolve().parents[2] / 'configs/_base_/methods'


@dataclass(frozen=True)
class Testbed:
    """A data set and a network whose baseline is good.

    Attributes:
        metric: The one that counts.
        tune, test: Images of the test set, as a range: settings are chosen on the first, finalists
            judged on the others.
        stem, early, middle, late: Places, of stride 2, 4, 8 and 16 (digits: 1, 2, 4 and 8).
        logits: Where predictions are, and what has to hold still for them.
        classifier: Settings of SeA.
    """

    metric: str
    tune: tuple[int, ...]
    test: tuple[int, ...]
    stem: str = 'backbone.timm_model.blocks.0'
    early: str = 'backbone.timm_model.blocks.1'
    middle: str = 'backbone.timm_model.blocks.2'
    late: str = 'backbone.timm_model.blocks.4'
    logits: Config = field(default_factory=dict)
    classifier: Config = field(default_factory=dict)


_CAMVID = Testbed(
    'mIoU',
    (0, 40),
    (40, 101),
    logits=dict(at='decode_head.conv_seg'),
    classifier=dict(at='decode_head.conv_seg'),
)
_DIGITS = Testbed(
    'accuracy/top1',
    (0, 797, 2),
    (1, 797, 2),
    stem='backbone.relu',
    early='backbone.layer1',
    middle='backbone.layer2',
    late='backbone.layer3',
    logits=dict(at='head.fc'),
    classifier=dict(at='head.fc'),
)
TESTBEDS = {
    'bccd': Testbed(
        'pascal_voc/mAP',
        (0, 36),
        (36, 87),
        logits=dict(at='roi_head.bbox_head.fc_cls', hold=('rpn_head',)),
        classifier=dict(at='roi_head.bbox_head.fc_cls', background=-1),
    ),
    'camvid': _CAMVID,
    'camvid-360': _CAMVID,
    'camvid-240': _CAMVID,
    'camvid-240-long': _CAMVID,
    'digits': _DIGITS,
    'digits-long': _DIGITS,
}


@dataclass(frozen=True)
class Arm:
    """What is added to a baseline.

    Attributes:
        augmentations: Of ``FeatureAugHook``; ``at`` may name a place of the test bed.
        hook: Its other settings.
        pipeline: Steps before the packing of a training image.
        hooks: Others.
        length: Of the training, in that of the baseline.
        options: Other settings of the config, by dotted key.
    """

    augmentations: tuple[Config, ...] = ()
    hook: Config = field(default_factory=dict)
    pipeline: tuple[Config, ...] = ()
    hooks: tuple[Config, ...] = ()
    length: float = 1.0
    options: Config = field(default_factory=dict)


def distort(*distortions: Config, prob: float = 1.0) -> Arm:
    """One of kornia's distortions for each image; without any: ours."""
    own = dict(distortions=list(distortions)) if distortions else {}
    return changed(dict(type='mmfeataug.DistortImages', at='inputs', prob=prob, **own))


def afan(at: str = 'middle', **settings: Any) -> Config:
    """A-FAN's view."""
    given: Config = dict(unit='std', gamma=0.25, learn='network', weight=0.5)
    return dict(type='mmfeataug.AFAN', at=at, **{**given, **settings})


def views(*augmentations: Config, clean: float = 0.5, **hook: Any) -> Arm:
    """Views beside the clean batch."""
    return Arm(augmentations, dict(clean_weight=clean, **hook))


def changed(*augmentations: Config) -> Arm:
    """Methods that change the clean pass itself, or add a term to its loss."""
    return Arm(augmentations, dict(clean_weight=1.0))


def both(one: Arm, other: Arm) -> Arm:
    """An image augmentation and a feature method."""
    return Arm(
        one.augmentations + other.augmentations,
        {**one.hook, **other.hook},
        one.pipeline + other.pipeline,
        one.hooks + other.hooks,
        max(one.length, other.length),
        {**one.options, **other.options},
    )


def everywhere(kind: str, places: tuple[str, ...] = ('early', 'middle'), **settings: Any) -> Arm:
    """A mixer of statistics at several places."""
    return changed(*(dict(type=f'mmfeataug.{kind}', at=at, **settings) for at in places))


GAMMAS = (0.05, 0.1, 0.25, 0.5, 1.0)
NOISE = dict(type='RandomGaussianNoise')
AUGMIX = dict(type='benchmarks.comparison.augmix.AugMix')
PIXELS = dict(type='mmfeataug.AFAN', at='inputs', unit='pixel', weight=0.5, learn='network')
CONSISTENT = dict(type='mmfeataug.StabilityTraining', at='logits')

ARMS: dict[str, Arm] = {
    'baseline': Arm(),
    # Opponents: pixels, time, averages, chance.
    **{f'noise-{s}': distort(dict(NOISE, std=s), prob=0.5) for s in (0.05, 0.1, 0.2)},
    'photometric': Arm(pipeline=(dict(type='PhotoMetricDistortion'),)),
    'augmix': distort(AUGMIX),
    'augmix-consistency': changed(dict(CONSISTENT, distortions=[AUGMIX])),
    'combined': distort(),
    'combined-half': distort(prob=0.5),
    'combined-quarter': distort(prob=0.25),
    'longer': Arm(length=1.6),
    'combined+epoch': both(distort(), Arm(length=1.125)),
    'averaged': Arm(
        hooks=(dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.01),)
    ),
    **{f'pixels-{g}': views(dict(PIXELS, gamma=g)) for g in (2.0, 4.0, 8.0)},
    # Strength and place of A-FAN.
    **{
        f'afan-{learn}-{at}-{gamma}': views(afan(at, gamma=gamma, learn=learn))
        for learn, at, gamma in (
            *product(('network',), ('early', 'middle', 'late'), GAMMAS),
            *product(('tail',), ('middle',), GAMMAS),
            ('tail', 'early', 0.25),
            ('tail', 'late', 0.25),
        )
    },
    'random-0.25': views(afan(direction='random')),
    'random-0.5': views(afan(direction='random', gamma=0.5)),
    'random-1.0': views(afan(direction='random', gamma=1.0)),
    'two-strengths': views(afan(strengths=(0.5, 1.0), weight=0.25)),
    'two-places': views(afan('early', weight=0.25), afan('late', weight=0.25)),
    **{
        f'reinject-{axes}': views(afan(reinject=True, axes=axes, gamma=0.5))
        for axes in ('channel', 'spatial', 'batch')
    },
    'view-and-reinject': views(afan(strengths=(1.0, 1.0), reinject=(False, True), weight=0.25)),
    'three-steps': views(afan(gamma=0.1, steps=3, eps=0.25)),
    'weight-0.25': views(afan(weight=0.25), clean=0.75),
    'weight-0.75': views(afan(weight=0.75), clean=0.25),
    # The other methods of the house.
    **{
        f'advbn-{eps}': views(
            dict(
                type='mmfeataug.AdvBN',
                at='early',
                steps=1,
                step_size=eps,
                eps=eps,
                weight=0.5,
                learn='network',
            )
        )
        for eps in (0.2, 0.5, 1.0)
    },
    **{
        f'np-plus-{s}': everywhere('NormalizationPerturbation', ('early',), plus=True, sigma=s)
        for s in (0.3, 0.75)
    },
    **{
        f'np-{s}': everywhere('NormalizationPerturbation', ('early',), sigma=s) for s in (0.3, 0.75)
    },
    **{f'dsu-{s}': everywhere('DSU', factor=s) for s in (0.5, 1.0, 2.0)},
    'mixstyle': everywhere('MixStyle'),
    'mrfp': changed(
        dict(type='mmfeataug.MRFP', at='stem'),
        dict(type='mmfeataug.NormalizationPerturbation', at='early', plus=True),
    ),
    'moex': everywhere('MoEx', ('early',)),
    'padain': everywhere('PAdaIN', prob=0.1),
    **{
        f'sea-{eta}': changed(dict(type='mmfeataug.SeA', at='classifier', eta=eta, weight=0.5))
        for eta in (0.2, 0.8)
    },
    **{
        f'fma-{w}': changed(dict(type='mmfeataug.FMA', at=['early', 'middle', 'late'], weight=w))
        for w in (0.3, 1.0)
    },
    'fma-task': Arm(
        (dict(type='mmfeataug.FMA', at=['early', 'middle', 'late'], weight=0.3, task_weight=0.5),),
        dict(clean_weight=0.5),
    ),
    'stability': changed(dict(CONSISTENT, distortions=[dict(NOISE, std=0.1)])),
    'stability-combined': changed(dict(CONSISTENT, distortions=list(DISTORTIONS))),
    **{
        f'advstyle-{g}': views(
            dict(type='mmfeataug.AdvStyle', sign=True, gamma=g, weight=0.5, learn='network')
        )
        for g in (0.1, 0.3)
    },
}
"""Name to arm."""

ARMS['afan'] = _afan = ARMS['afan-network-middle-0.25']
ARMS['afan-early'] = ARMS['afan-network-early-0.25']
ARMS['afan-late'] = ARMS['afan-network-late-0.25']
ARMS['afan-tail'] = ARMS['afan-tail-middle-0.25']
ARMS['random'] = ARMS['random-0.25']
ARMS |= {
    f'{name}+afan': both(ARMS[name], _afan)
    for name in ('combined', 'combined-half', 'augmix', 'noise-0.1', 'averaged', 'photometric')
}
ARMS['reinject-spatial-early'] = views(afan('early', reinject=True, axes='spatial', gamma=0.5))
ARMS |= {
    f'{name}+reinject-spatial': both(ARMS[name], ARMS['reinject-spatial'])
    for name in ('combined', 'combined-half')
}
ARMS |= {f'{name}+np': both(ARMS[name], ARMS['np-0.75']) for name in ('combined', 'combined-half')}
ARMS |= {
    f'{name}+longer': both(ARMS[name], ARMS['longer']) for name in ('combined', 'combined-half')
}
ARMS['combined+afan-early'] = both(ARMS['combined'], ARMS['afan-early'])
ARMS['afan-fifth'] = both(_afan, Arm(hook=dict(prob=0.2)))
ARMS['combined+afan-fifth'] = both(ARMS['combined'], ARMS['afan-fifth'])
_average, _adautomix = File.fromfile(BLOCKS / 'adautomix.py').to_dict()['custom_hooks']
ARMS['adautomix'] = Arm(
    hook=dict(clean_weight=_adautomix['clean_weight']),
    hooks=(_average,),
    # The generator fits one network, that of digits; it learns ten times as fast.
    options={
        'model.type': 'mmfeataug.AugmentedModel',
        'model.of': 'ImageClassifier',
        'model.augmentations': [dict(_adautomix['augmentations'][0], channels=64)],
        'optim_wrapper.paramwise_cfg': dict(custom_keys={'feature_aug': dict(lr_mult=10.0)}),
    },
)
# Do views harm because of the skip, which they pass by, or of batch norms? See diagnosis.py, too.
ARMS['no-skip'] = Arm(
    options={f'model.decode_head.c1_{what}': 0 for what in ('in_channels', 'channels')}
)
ARMS['group-norm'] = Arm(options={'model.decode_head.norm_cfg': dict(type='GN', num_groups=8)})
ARMS |= {f'{name}+afan': both(ARMS[name], _afan) for name in ('no-skip', 'group-norm')}
# Which of its families costs DistortImages clean accuracy?
_FAMILIES = {'colour': DISTORTIONS[:2], 'blur': DISTORTIONS[2:4], 'noise': DISTORTIONS[4:]}
ARMS |= {f'distort-{name}': distort(*family) for name, family in _FAMILIES.items()}

LABELS = {
    'baseline': 'baseline',
    'longer': 'baseline, 1.6 times as long',
    'averaged': 'averaged weights',
    'noise-0.1': 'Gaussian noise',
    'photometric': 'photometric distortion',
    'augmix': 'AugMix, colours only',
    'augmix-consistency': 'consistency with one AugMix copy',
    'pixels-4.0': 'pixel attack, shared batch norms',
    'advbn-0.5': 'AdvBN, one step, shared batch norms',
    'np-0.75': 'NP',
    'np-plus-0.75': 'NP+',
    'dsu-1.0': 'DSU',
    'mixstyle': 'MixStyle',
    'moex': 'MoEx',
    'padain': 'pAdaIN',
    'mrfp': 'MRFP+',
    'sea-0.8': 'SeA',
    'adautomix': 'AdAutoMix, its teacher',
    'fma-task': 'FMA, loss of the copies added',
    'stability-combined': 'stability training on distorted copies',
    'no-skip': 'baseline without the skip',
    'no-skip+afan': 'A-FAN without the skip',
    'group-norm': 'baseline, head with group norm',
    'group-norm+afan': 'A-FAN, head with group norm',
    'distort-colour': 'DistortImages, colours only',
    'distort-blur': 'DistortImages, blur only',
    'distort-noise': 'DistortImages, noise only',
    'combined': 'DistortImages',
    'combined-half': 'DistortImages(prob=0.5)',
    'combined-quarter': 'DistortImages(prob=0.25)',
    'combined+epoch': 'DistortImages, 1.125 times as long',
    'combined+longer': 'DistortImages, 1.6 times as long',
    'combined-half+longer': 'DistortImages(prob=0.5), 1.6 times as long',
    'combined+np': 'DistortImages and NP',
    'combined-half+np': 'DistortImages(prob=0.5) and NP',
    'random': 'A-FAN, random direction',
    'afan-tail': 'A-FAN, tail',
    'reinject-channel': 'A-FAN, re-injected (channel)',
    'reinject-spatial': 'A-FAN, re-injected (spatial)',
    'reinject-spatial-early': 'A-FAN, re-injected (spatial), early',
    'afan': 'A-FAN',
    'afan-early': 'A-FAN, early',
    'afan-late': 'A-FAN, late',
    'afan-fifth': 'A-FAN in a fifth of the steps',
    'combined+afan': 'DistortImages and A-FAN',
    'combined+reinject-spatial': 'DistortImages and A-FAN, re-injected (spatial)',
    'combined-half+reinject-spatial': 'DistortImages(prob=0.5) and A-FAN, re-injected (spatial)',
    'combined+afan-early': 'DistortImages and A-FAN, early',
    'combined+afan-fifth': 'recommended block',
}
"""What tables call finalists, in their order."""


CARDS = {
    'distort_images': (
        'combined',
        'combined-half',
        'combined-quarter',
        'combined-half+longer',
        'combined-quarter',
        'combined+epoch',
        'combined+longer',
        'combined+np',
        'combined+afan',
        'combined+afan-fifth',
    ),
    'afan': (
        'afan',
        'afan-tail',
        'afan-early',
        'reinject-spatial',
        'combined+afan',
        'combined+reinject-spatial',
    ),
    'advbn': ('advbn-0.5',),
    'advprop': ('pixels-4.0',),
    'adautomix': ('adautomix',),
    'sea': ('sea-0.8',),
    'fma': ('fma-task', 'stability-combined'),
    'statistic': ('mixstyle', 'dsu-1.0', 'moex', 'padain', 'np-0.75', 'np-plus-0.75', 'mrfp'),
}
"""Folder of configs, to the arms that its card shows."""


@dataclass(frozen=True)
class Study:
    """Arms on test beds, with several seeds, judged on one part of the test images."""

    part: str
    seeds: tuple[int, ...]
    arms: dict[str, tuple[str, ...]]

    def runs(self) -> list[tuple[str, str, int]]:
        """Test bed, arm and seed of each run; a seed at a time."""
        return [
            (bed, arm, seed)
            for seed in self.seeds
            for bed, arms in self.arms.items()
            for arm in arms
        ]


_FIRST = (
    'baseline', 'combined', 'afan-network-middle-0.25', 'combined+afan',
    'afan-network-middle-0.1', 'afan-network-middle-0.5', 'afan-network-middle-1.0',
    'afan-network-early-0.25', 'afan-network-late-0.25', 'afan-tail-middle-0.25', 'random-0.25',
    'noise-0.1', 'noise-0.2', 'photometric', 'augmix', 'afan-network-early-0.5',
    'afan-network-late-0.5', 'afan-network-early-0.1', 'afan-network-late-0.1', 'advbn-0.5',
    'np-plus-0.75', 'combined-half', 'pixels-4.0', 'augmix-consistency', 'stability-combined',
    'fma-task', 'afan-tail-late-0.25', 'afan-tail-early-0.25', 'view-and-reinject', 'two-strengths',
    'augmix+afan', 'averaged', 'averaged+afan', 'longer', 'dsu-1.0', 'mixstyle', 'mrfp',
    'reinject-channel',
    'three-steps', 'random-0.5', 'afan-tail-middle-0.5', 'two-places', 'moex', 'sea-0.8', 'fma-0.3',
    'stability', 'advstyle-0.3', 'noise-0.05', 'pixels-8.0', 'advbn-1.0', 'np-0.75', 'np-plus-0.3',
)  # fmt: skip


def _tuned(classifier: bool = False) -> tuple[str, ...]:
    """Arms with different settings that the network has all parts for."""
    found: dict[str, Arm] = {}
    for name in (*_FIRST, *ARMS):
        arm = ARMS[name]
        lacking = arm.options or (classifier and arm.pipeline)
        if not lacking and arm not in found.values():
            found[name] = arm
    return tuple(found)


_FINAL = ('baseline', 'afan', 'combined', 'combined+afan')
_REINJECTED = ('reinject-spatial', 'combined+reinject-spatial')
_EQUAL = ('longer', 'combined+longer', 'random', 'afan-tail', 'combined+afan-fifth')
_OPPONENTS = ('averaged', 'noise-0.1', 'augmix', 'pixels-4.0')
_HOUSE = ('afan-early', 'augmix+afan')
_PERTURBED = ('np-0.75', 'combined+np')
_OTHERS = (
    'advbn-0.5', 'np-plus-0.75', 'dsu-1.0', 'mixstyle', 'moex', 'padain', 'mrfp',
    'sea-0.8', 'fma-task', 'stability-combined',
)  # fmt: skip
STUDIES = {
    'tune': Study(
        'tune',
        (0, 1),
        {'bccd': _tuned(), 'camvid-360': _tuned(), 'digits': _tuned(classifier=True)},
    ),
    'final': Study(
        'test',
        tuple(range(8)),
        {
            'bccd': (
                *_FINAL,
                *_EQUAL,
                'combined+epoch',
                *_REINJECTED,
                *_PERTURBED,
                *_OPPONENTS,
                'photometric',
                *_HOUSE,
                *_OTHERS,
            ),
            'camvid': (
                *_FINAL,
                'longer',
                'afan-early',
                *_REINJECTED,
                'combined-half',
                'combined-half+reinject-spatial',
            ),
            'camvid-360': (*_FINAL, *_REINJECTED, 'combined-half', 'reinject-spatial-early'),
            'camvid-240': (
                *_FINAL,
                *_REINJECTED,
                *_PERTURBED,
                'combined-half',
                'combined-half+reinject-spatial',
                'combined-half+np',
                'reinject-spatial-early',
                'longer',
                'augmix',
            ),
            'camvid-240-long': (
                *_FINAL,
                *_REINJECTED,
                'np-0.75',
                'combined-half',
                'combined-quarter',
                'combined-half+longer',
                'longer',
                'augmix',
            ),
            'digits': (*_FINAL, *_REINJECTED),
            'digits-long': (
                *_FINAL,
                *_EQUAL,
                *_REINJECTED,
                *_PERTURBED,
                *_OPPONENTS,
                *_OTHERS,
                'adautomix',
            ),
        },
    ),
    'why': Study(
        'test',
        (0, 1),
        {
            'camvid': ('no-skip', 'no-skip+afan'),
            'camvid-240': ('group-norm', 'group-norm+afan'),
            'camvid-240-long': tuple(f'distort-{name}' for name in _FAMILIES),
        },
    ),
}
