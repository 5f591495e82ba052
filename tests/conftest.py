# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import ctypes
import gc
import logging
import os
import random
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

# More threads than free cores make small convolutions slower, and tests often share a machine.
torch.set_num_threads(1)
logging.getLogger('mmengine').setLevel(logging.ERROR)

REAL_DATA = Path(
    os.environ.get('MMFEATAUG_DATA', Path(__file__).resolve().parents[2] / 'shared' / 'data')
)


def pytest_addoption(parser):
    parser.addoption(
        '--device',
        choices=('cpu', 'cuda'),
        default='cuda' if torch.cuda.is_available() else None,
        help='where the tests marked gpu run; without one they are skipped',
    )


@pytest.fixture
def device(request):
    """Of tests marked gpu."""
    chosen = request.config.getoption('--device')
    if chosen is None:
        pytest.skip('no GPU; --device cpu tries the code without')
    return chosen


@pytest.fixture(autouse=True)
def seeded():
    """Draws of a test depend on no other test."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(autouse=True)
def small():
    """Workers stay below 2.5 GB: models of earlier tests are in cycles, and freed memory in
    arenas."""
    yield
    statm = Path('/proc/self/statm')
    # Not more often than needed: it takes a third of a second.
    if statm.exists() and int(statm.read_text().split()[1]) * resource.getpagesize() > 1.75e9:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope='session')
def demo_data(tmp_path_factory):
    """A small generated set in VOC, COCO and Cityscapes layout; maps layout to folder."""
    from mmfeataug.datasets import make_demo_data

    return make_demo_data(tmp_path_factory.mktemp('data') / 'demo', train=8, val=4, size=(128, 96))
