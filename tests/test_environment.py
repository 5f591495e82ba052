# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

import mmfeataug
from mmfeataug.utils.environment import check_environment, missing_operators

GOOD = {
    'torch': '2.13.0+cpu',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
}


def check(installed):
    def version(name):
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    check_environment(version)


def test_good_environments(recwarn):
    check(GOOD)
    check({'torch': '2.1.0', 'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmdet': '3.3.0'})
    assert not recwarn


@pytest.mark.parametrize('torch', [None, '2.0.1', '1.13.1', '0.4.1'])
def test_torch_missing_or_old(torch):
    installed = (
        {**GOOD, 'torch': torch} if torch else {k: v for k, v in GOOD.items() if k != 'torch'}
    )
    with pytest.raises(
        ImportError, match=rf'PyTorch 2.1 or newer, found {torch or "none"}.*pip install torch'
    ):
        check(installed)


def test_mmengine_missing():
    with pytest.raises(ImportError, match=r'needs mmengine: pip install "mmfeataug\[onedl\]"'):
        check({'torch': '2.13.0'})


def test_checkpoints_of_the_original_packages():
    """mmengine 0.10.7 cannot resume with a PyTorch that reads weights only."""
    original = {'mmengine': '0.10.7', 'mmcv': '2.1.0'}
    with pytest.warns(UserWarning, match='mmengine 0.10.7 cannot read.*take PyTorch 2.1.2'):
        check({'torch': '2.13.0+cpu', **original})


def test_both_families():
    with pytest.warns(
        UserWarning, match="onedl-mmdetection and mmdet are both installed.*provide 'mmdet'"
    ):
        check({**GOOD, 'mmdet': '3.3.0'})


@pytest.mark.parametrize(
    ('scope', 'found', 'fault'),
    [
        ('mmdet', None, "default_scope='mmdet' needs mmcv's compiled operators.*pip install"),
        ('mmdet', object(), None),
        ('mmseg', None, None),
        ('mmpretrain', None, None),
    ],
)
def test_missing_operators(scope, found, fault):
    said = missing_operators(scope, lambda name: found)
    assert (said is None) == (fault is None)
    assert fault is None or re.search(fault, said)


def test_imports():
    """The package alone is cheap; engine and functions know no framework."""
    code = """
import sys

def loaded(*names):
    return [m for m in sys.modules if m.split('.')[0] in names]

FRAMEWORKS = 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'
import mmfeataug
assert not loaded(*FRAMEWORKS, 'torch', 'cv2')
import mmfeataug.engine, mmfeataug.functional
assert not loaded(*FRAMEWORKS)
"""
    subprocess.run([sys.executable, '-c', code], check=True)


def test_public_names():

    assert callable(mmfeataug.attach)
    for name in ('signed_step', 'interpolate', 'reinject_statistics'):
        assert callable(getattr(mmfeataug.functional, name))
    with pytest.raises(AttributeError, match='no attribute'):
        _ = mmfeataug.nothing
