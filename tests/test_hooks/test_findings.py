# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Config lines that mend what was found: in the right entry, once."""

import pytest

from mmfeataug.hooks import Finding, config_lines
from mmfeataug.utils.settings import Fix

IMAGES = dict(type='mmfeataug.DistortImages')


def afan(at):
    return dict(type='mmfeataug.AFAN', at=at)


def lines(entries, *findings):
    """The lines, without what all begin with; a fix stands for a finding that has it."""
    cfg = dict(custom_hooks=[dict(type='mmfeataug.FeatureAugHook', augmentations=entries)])
    found = [f if isinstance(f, Finding) else Finding('', fix=f) for f in findings]
    return [
        line.removeprefix('_base_.custom_hooks[0].augmentations')
        for line in config_lines(cfg, found)
    ]


def place(at, value, kind=''):
    return Fix('augmentation', 'at', value, at, kind)


def gamma(value, at):
    return Fix('augmentation', 'gamma', value, at, 'AFAN')


TYPO = place('backbone.layr2', 'backbone.layer2')


@pytest.mark.parametrize(
    ('entries', 'wanted'),
    [
        ([IMAGES, afan('backbone.layr2')], ["[1].at = 'backbone.layer2'"]),
        (
            [afan('backbone.layr2'), dict(type='AdvBN', at=['backbone.layr2', 'x'])],
            ["[0].at = 'backbone.layer2'", "[1].at = ['backbone.layer2', 'x']"],
        ),
        # A hook counts from the model.
        ([afan('layr2'), afan('backbone.layr2')], ["[1].at = 'backbone.layer2'"]),
    ],
)
def test_a_place_is_mended_where_it_is_written(entries, wanted):
    assert lines(entries, TYPO) == wanted


def test_two_places_of_one_entry():
    entry = afan(['backbone.layr2', 'backbone.layr3'])
    both = TYPO, place('backbone.layr3', 'backbone.layer3')
    assert lines([entry], *both) == ["[0].at = ['backbone.layer2', 'backbone.layer3']"]


def test_the_default_place_of_a_class():
    entries = [IMAGES, dict(type='mmfeataug.FMA')]
    assert lines(entries, place('backbone', 'backbone.conv1', 'FMA')) == [
        "[1].at = 'backbone.conv1'"
    ]


def test_a_pattern_becomes_the_list_of_its_places():
    fix = place('neck.b', 'neck.b.0', 'AFAN')
    # Those of other entries, and those deeper than the pattern, are not its own.
    finding = Finding('', fix=fix, places=('neck.a', 'neck.b', 'neck.a.0', 'head'))
    assert lines([afan('neck.*')], finding) == ["[0].at = ['neck.a', 'neck.b.0']"]
    whole = place('nek.*', 'neck')
    assert lines([afan('nek.*')], whole) == ["[0].at = 'neck'"]


def test_a_part_of_the_model_counts_from_itself():
    part = dict(type='mmfeataug.AugmentedBackbone', augmentations=[afan('layer*')])
    fix = place('backbone.layer2', 'backbone.layer2.0', 'AFAN')
    finding = Finding('', fix=fix, places=('backbone.layer1', 'backbone.layer2'))
    assert config_lines(dict(model=dict(type='X', backbone=part)), [finding]) == [
        "_base_.model.backbone.augmentations[0].at = ['layer1', 'layer2.0']"
    ]


def test_one_value_for_each_setting():
    entry = afan('backbone.layer[12]')
    first, second = gamma(0.5, 'backbone.layer1'), gamma(0.7, 'backbone.layer2')
    assert lines([entry], first) == ['[0].gamma = 0.5']
    assert lines([entry], first, gamma(0.5, 'backbone.layer2')) == ['[0].gamma = 0.5']
    assert lines([entry], first, second) == []
    # Two that cannot be told apart.
    assert lines([afan('backbone.layer1'), afan('backbone.layer1')], first) == []
