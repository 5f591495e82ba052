# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 6: several processes are one machine. Each test starts its processes by torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.processes import GRADIENTS

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

ROOT = Path(__file__).resolve().parents[2]


def torchrun(processes, *args, timeout=500):
    result = subprocess.run(
        [
            *(sys.executable, '-m', 'torch.distributed.run', f'--nproc_per_node={processes}'),
            *(
                '--rdzv_backend=c10d',
                '--rdzv_endpoint=127.0.0.1:0',
                '-m',
                'tests.contract.processes',
            ),
            *args,
        ],
        cwd=ROOT,
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'PYTHONPATH': f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}',
        },
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, f'{result.stdout[-1000:]}{result.stderr[-3000:]}'
    return result.stdout


def test_two_processes_are_one_machine():
    """One launch for all that two processes have to agree on: gradients are the mean over ranks,
    with a bad view or term on one rank, and with more views on one than on another (collectives
    inside the tail must still meet); weights stay identical while real models train with each kind
    of method; and the settings of contract 7.
    """
    assert torchrun(2).count('all agree') == 2


@pytest.mark.slow
def test_four_processes():
    names = (*(check.__name__ for check in GRADIENTS), 'detector')
    assert torchrun(4, *names).count('all agree') == 4
