# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 6: several processes are one machine. Each test starts its processes by torchrun."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def torchrun(processes, *args, module='tests.contract.processes', timeout=420, ok=True):
    result = subprocess.run(
        [
            *(sys.executable, '-m', 'torch.distributed.run', f'--nproc_per_node={processes}'),
            *('--rdzv_backend=c10d', '--rdzv_endpoint=127.0.0.1:0', '-m', module, *map(str, args)),
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
    assert (result.returncode == 0) == ok, result.stderr[-3000:]
    return result.stdout if ok else result.stderr


@pytest.mark.parametrize('processes', [2, 4])
def test_gradients_are_the_mean_over_ranks(processes):
    """With a bad view or term on one rank, and with more views on one than on another: collectives
    inside the tail must still meet. On both engines.
    """
    assert torchrun(processes, 'gradients').count('agreed') == processes


@pytest.mark.parametrize(
    ('processes', 'kind', 'options'),
    [
        (2, 'segmentor', ['prob=0.5', 'diff_rank_seed=True']),
        (2, 'detector', ['interval=3', 'find_unused_parameters=True']),
        (2, 'segmentor', ['interval=2', 'static_graph=True']),
        (4, 'detector', ['prob=0.3']),
    ],
)
def test_weights_stay_identical(processes, kind, options):
    """20 iterations under mmengine's Runner, with views in some of them."""
    assert torchrun(processes, 'train', kind, *options).count('agreed') == processes


@pytest.mark.methods
def test_methods_with_second_batch_norms():
    """AdvBN with its own batch norms and steps shared by the processes, SeA, FMA and MixStyle in
    one model, in some iterations."""
    options = ['prob=0.6', 'find_unused_parameters=True']
    assert torchrun(2, 'train', 'methods', *options).count('agreed') == 2


@pytest.mark.methods
def test_methods_of_a_detector():
    """SeA with a background class, stability training on held proposals, and an attack on the image
    that tries two of the losses."""
    assert torchrun(2, 'train', 'detector_methods', 'prob=0.4').count('agreed') == 2


@pytest.mark.methods
def test_second_batch_norms_are_not_always_used():
    message = "bn='separate'.*find_unused_parameters=True"
    assert re.search(message, torchrun(2, 'train', 'methods', ok=False))


@pytest.mark.adautomix
def test_a_method_with_a_generator_and_a_teacher():
    """Network and generator stay alike on all ranks, in iterations with and without mixing."""
    options = ['prob=0.6', 'find_unused_parameters=True']
    assert torchrun(2, 'train', 'mixing', *options).count('agreed') == 2
    message = 'parameters of its own.*find_unused_parameters=True'
    assert re.search(message, torchrun(2, 'train', 'mixing', ok=False), re.DOTALL)
