# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Reading mmengine's checkpoints as weights only, and nothing else."""

import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmfeataug.utils import checkpoints

pytestmark = pytest.mark.skipif(
    not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'),
    reason='this PyTorch reads everything',
)


@pytest.fixture(autouse=True)
def nothing_declared():
    """What this process has declared before is put back afterwards."""
    declared = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.add_safe_globals(declared)


class Attack:
    """Calls ``getattr`` on something else, as a harmful file would."""

    def __init__(self, owner, name):
        self.call = owner, name

    def __reduce__(self):
        return getattr, self.call


def test_checkpoint_with_logs_is_read(tmp_path):
    buffer = HistoryBuffer()
    for value in (1.0, 2.0, np.float64(3.0)):
        buffer.update(value)
    path = tmp_path / 'checkpoint.pth'
    torch.save({'state_dict': {'w': torch.ones(2)}, 'message_hub': {'log': buffer}}, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    with torch.serialization.safe_globals(checkpoints.safe_globals()):
        loaded = torch.load(path, weights_only=True)
    assert loaded['message_hub']['log'].mean() == 2.0
    assert torch.equal(loaded['state_dict']['w'], torch.ones(2))


@pytest.mark.parametrize(('owner', 'name'), [(np.ndarray, 'tofile'), (HistoryBuffer, '__init__')])
def test_nothing_else_is_reached(tmp_path, owner, name):
    path = tmp_path / 'checkpoint.pth'
    torch.save({'w': Attack(owner, name)}, path)
    with (
        torch.serialization.safe_globals(checkpoints.safe_globals()),
        pytest.raises(pickle.UnpicklingError, match='no log buffer'),
    ):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize(('continued', 'expected'), [(True, False), (False, True)])
def test_only_where_it_is_needed(monkeypatch, continued, expected):
    def version(name):
        if not continued:
            raise checkpoints.metadata.PackageNotFoundError(name)
        return '0.10.12'

    declared = []
    monkeypatch.setattr(checkpoints.metadata, 'version', version)
    monkeypatch.setattr(torch.serialization, 'add_safe_globals', declared.extend)
    assert checkpoints.declare_log_buffers() is expected
    assert bool(declared) is expected
