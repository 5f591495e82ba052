# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A torchvision whose operators cannot be loaded is importable after our registry, and only there
something is declared."""

import os
import subprocess
import sys

import pytest
import torch

# What the real one does at import: a shape rule for an operator that its library should declare.
PACKAGE = """
import torch

@torch.library.register_fake('torchvision::nms')
def shape(dets, scores, iou_threshold):
    return scores
"""
DECLARED = """
import torch
from mmfeataug.utils.torchvision import declare_operators
print(declare_operators())
import torchvision
boxes = torch.zeros(1, 4)
try:
    torch.ops.torchvision.nms(boxes, boxes[:, 0], 0.5)
except NotImplementedError:
    print('raises')
print(declare_operators())
"""


def run(code, path=None):
    result = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, 'OMP_NUM_THREADS': '1'}
        | ({'PYTHONPATH': f'{path}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'} if path else {}),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.split()


@pytest.fixture
def package(tmp_path):
    """A torchvision without a library."""
    folder = tmp_path / 'torchvision'
    folder.mkdir()
    (folder / '__init__.py').write_text(PACKAGE)
    return folder


NEEDS_RULES = pytest.mark.skipif(
    not hasattr(torch.library, 'register_fake'), reason='this PyTorch has other shape rules'
)


@NEEDS_RULES
def test_operators_are_declared_and_raise(package):
    assert run(DECLARED, package.parent) == ['True', 'raises', 'False']


@NEEDS_RULES
def test_library_that_cannot_be_loaded(package):
    (package / '_C.so').write_bytes(b'built for something else')
    assert run(DECLARED, package.parent) == ['True', 'raises', 'False']


def test_nothing_is_declared_where_the_library_loads(package):
    (package / '_C.so').touch()
    code = 'import torch; torch.ops.load_library = lambda path: print(path.split("/")[-1]);'
    code += 'from mmfeataug.utils.torchvision import declare_operators; print(declare_operators());'
    code += 'print(hasattr(torch.ops.torchvision, "nms"))'
    assert run(code, package.parent) == ['_C.so', 'False', 'False']


def test_without_torchvision():
    code = 'import mmfeataug.utils.torchvision as t; t.find_spec = lambda name: None;'
    assert run(f'{code} print(t.declare_operators())') == ['False']


def test_registry_is_enough():
    """For the real one, whichever is installed."""
    pytest.importorskip('torchvision')
    code = 'import mmfeataug.registry; from torchvision import transforms; print("imported")'
    assert run(code) == ['imported']
