# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The engine held against ``tests.reference``, for any model and any methods that make views."""

import copy
import importlib
from contextlib import contextmanager
from unittest import mock

import torch
from torch import nn

import mmfeataug
from mmfeataug.engine import FeatureAugmentation, View
from tests import reference
from tests.models import random_test_batch, step


class Unmoved(FeatureAugmentation):
    """Views that are the clean features."""

    active = True

    def __init__(self, *, at, weight, **kwargs):
        super().__init__(at=at, **kwargs)
        self.weight = weight

    def views(self, features, gradients, tail):
        yield View([f.clone() for f in features], self.weight)


def seen_views(augmentation, weights):
    """A list that fills with the views that an augmentation is going to be trained on."""
    found = []

    def observer(clean, changed, images=None, index=0):
        at_tap = (lambda model: None) if augmentation.bn != 'eval' else evaluate_norms
        if augmentation.bn == 'separate':
            at_tap = use_second_norms
        found.append(
            reference.SeenView(
                augmentation.at,
                [f.clone() for f in changed],
                weights[index],
                augmentation.learn,
                augmentation.side,
                at_tap,
            )
        )

    augmentation.observer = observer
    return found


def evaluate_norms(model):
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.training = False


def use_second_norms(model):
    twins = model.aux_bn
    for path in twins.paths:
        first, second = model.get_submodule(path), twins.get_submodule(path)
        first._parameters, first._buffers = second._parameters, second._buffers


@contextmanager
def double_precision():
    """Within this context models and batches are built in double precision, where rounding hides
    nothing."""
    try:
        nms = importlib.import_module('mmcv.ops.nms')
    except ImportError:  # mmcv-lite
        nms = mock.Mock()
    original = nms.ext_module.nms

    def narrow(boxes, scores, **kwargs):
        # mmcv's kernel knows no doubles; it returns indices.
        return original(boxes.float(), scores.float(), **kwargs)

    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(nms, 'ext_module', mock.Mock(wraps=nms.ext_module, nms=narrow)):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def double(build):
    """A model in double precision, and a batch for it."""
    model = build().double()
    for module in model.modules():
        # Residual branches begin with factors of 0, behind which no gradient goes.
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    inputs, *rest = random_test_batch(model)
    return model, (inputs.double(), *rest)


def held_against_reference(model, configs, batch, clean_weight=0.25, limit=1e-7):
    """One augmented step: losses of views and all gradients are what the reference says.

    Some losses of mmdet are taken in single precision, where weights such as 0.2 are rounded.
    """
    before = copy.deepcopy(model)
    with mmfeataug.attach(model, configs, clean_weight=clean_weight, strict=True) as handle:
        seen = {n: seen_views(a, handle.view_weights[n]) for n, a in handle.augmentations.items()}
        losses, gradients = step(model, copy.deepcopy(batch))
        assert all(tap.memoize and tap.verified for tap in handle.taps)
    views = [view for found in seen.values() for view in found]
    assert views
    values, expected = reference.expected(before, copy.deepcopy(batch), clean_weight, views)
    logged = [losses[f'{name}.loss_{i}'] for name, found in seen.items() for i in range(len(found))]
    torch.testing.assert_close(torch.stack(logged), torch.stack(values), rtol=limit, atol=0)
    assert difference(gradients, expected) < limit
    return losses, gradients


def difference(ours, expected, floor=1e-6):
    """Largest difference of two gradient dicts, relative to the tensor's largest element, or to
    ``floor`` times the largest of all where a tensor's gradient is rounding."""
    reached = [n for n, g in expected.items() if g is not None]
    assert [n for n, g in ours.items() if g is not None] == reached
    largest = max(float(expected[n].abs().max()) for n in reached if expected[n].numel())
    return max(
        float((ours[n] - expected[n]).abs().max() / expected[n].abs().max().clamp(floor * largest))
        for n in reached
        if ours[n].numel()
    )
