# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import builtins
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmfeataug.datasets import make_digits
from mmfeataug.datasets.digits import TRAIN, enlarge, split

pytestmark = pytest.mark.classification


def digest(root):
    files = sorted(Path(root).rglob('*.png'))
    return {f.relative_to(root): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_files(tmp_path):
    pytest.importorskip('sklearn')
    root = Path(make_digits(tmp_path / 'a'))
    files = digest(root)
    assert len(files) == 1797
    train = [f for f in files if f.parts[0] == 'train']
    assert len(train) == TRAIN
    assert {f.parts[1] for f in train} == set('0123456789')
    image = cv2.imread(str(root / train[0]), cv2.IMREAD_UNCHANGED)
    assert image.shape == (32, 32)
    assert image.dtype == np.uint8
    # Again, and elsewhere: the same files.
    assert digest(make_digits(tmp_path / 'a')) == files
    assert digest(make_digits(tmp_path / 'b')) == files
    # With another seed: none is in both parts.
    other = digest(make_digits(tmp_path / 'a', seed=1))
    assert len(other) == 1797
    assert other.keys() != files.keys()


def test_split_keeps_the_shares_of_classes():
    labels = np.repeat(np.arange(10), np.arange(140, 220, 8))
    train = split(labels, seed=0)
    assert len(train) == TRAIN
    share = np.bincount(labels[list(train)]) / np.bincount(labels)
    assert np.ptp(share) < 0.01
    assert split(labels, seed=0) == train != split(labels, seed=1)


def test_levels():
    image = np.zeros((8, 8))
    image[:4] = 16
    big = enlarge(image, 32)
    assert big.shape == (32, 32)
    assert (big[2], big[-3]) == (pytest.approx(255), pytest.approx(0))


def test_missing_library_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith('sklearn'):
            raise ImportError('No module named sklearn')
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(ImportError, match=r'pip install mmfeataug\[cls\]'):
        make_digits('nowhere')


def test_stock_dataset(tmp_path):
    pytest.importorskip('sklearn')
    pytest.importorskip('torchvision')
    datasets = pytest.importorskip('mmpretrain.datasets')
    root = make_digits(tmp_path)
    for part, count in (('train', TRAIN), ('val', 1797 - TRAIN)):
        dataset = datasets.CustomDataset(data_root=root, data_prefix=part)
        assert len(dataset) == count
        assert list(dataset.CLASSES) == list('0123456789')
