# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corrupted copies on disk: what Corrupt makes, to the bit, and nothing else is taken for it."""

import json
import shutil
import sys

import cv2
import numpy as np
import pytest
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, init_default_scope

from mmfeataug.datasets import LoadCorrupted, corrupt_images, make_corrupted
from mmfeataug.datasets.copies import MANIFEST, decode, encode

pytest.importorskip('imagecorruptions')

CONDITIONS = [('gaussian_noise', 3), ('jpeg_compression', 2)]
# Names that are equal in different folders, and one that is the end of another.
NAMES = ['a/0001.png', 'b/0001.png', 'b/c/0001.png', '2.png']


@DATASETS.register_module(force=True)
class WithoutFiles(BaseDataset):
    """As mmpretrain's CIFAR: images in RGB, without a path."""

    METAINFO = {}

    def load_data_list(self):
        rng = np.random.default_rng(1)
        return [dict(img=rng.integers(0, 256, (40, 50, 3), np.uint8)) for _ in range(3)]


@pytest.fixture
def root(tmp_path):
    init_default_scope('mmengine')
    rng = np.random.default_rng(0)
    for name in NAMES:
        path = tmp_path / 'set' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (40, 50, 3), np.uint8))
    listed = dict(metainfo={}, data_list=[dict(img_path=name) for name in NAMES])
    (tmp_path / 'set/list.json').write_text(json.dumps(listed))
    return tmp_path / 'set'


def loader_of(root, **load):
    """A list of its own, as a config is read anew."""
    pipeline = [dict(type='LoadImageFromFile', **load)]
    return dict(
        dataset=dict(
            type=BaseDataset, data_root=str(root), ann_file='list.json', pipeline=pipeline,
            data_prefix=dict(img_path=''), test_mode=True,
        )
    )  # fmt: skip


def images(loader, condition, folder=None, scope='mmdet'):
    corrupt_images(loader, scope, *condition, folder)
    data = DATASETS.build(loader['dataset'])
    return [data[i]['img'] for i in range(len(data))]


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.mark.parametrize(
    'load', [{}, {'color_type': 'grayscale'}, {'to_float32': True}], ids=['colour', 'grey', 'float']
)
def test_the_same_images(root, tmp_path, load):
    folder = tmp_path / 'out'
    assert make_corrupted(loader_of(root, **load), 'mmdet', folder, CONDITIONS) == 8
    for condition in CONDITIONS:
        drawn = images(loader_of(root, **load), condition)
        read = images(loader_of(root, **load), condition, folder)
        assert len(read) == len(NAMES)
        for a, b in zip(drawn, read, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert np.array_equal(a, b)
            assert b.flags.c_contiguous
            assert b.flags.writeable
    assert not np.array_equal(read[0], read[1])
    # The set may lie elsewhere when they are read, and have fewer images.
    moved = shutil.move(root, tmp_path / 'elsewhere')
    loader = loader_of(moved, **load)
    loader['dataset']['indices'] = [1, 2]
    kept = images(loader, condition, folder)
    assert all(np.array_equal(a, b) for a, b in zip(kept, read[1:3], strict=True))


def test_images_of_unknown_origin_are_not_taken_over(root, tmp_path):
    folder = tmp_path / 'out'
    make_corrupted(loader_of(root), 'mmdet', folder, CONDITIONS[:1])
    (folder / MANIFEST).unlink()
    with pytest.raises(ValueError, match=f'has corrupted images and no {MANIFEST}'):
        make_corrupted(loader_of(root), 'mmdet', folder, CONDITIONS[:1])
    assert not (folder / MANIFEST).exists()


def test_images_without_a_file(root, tmp_path):
    def loader():
        return dict(dataset=dict(type=WithoutFiles, pipeline=[], test_mode=True))

    assert make_corrupted(loader(), 'mmpretrain', tmp_path / 'out', CONDITIONS) == 6
    for condition in CONDITIONS:
        drawn = images(loader(), condition, scope='mmpretrain')
        read = images(loader(), condition, tmp_path / 'out', scope='mmpretrain')
        assert all(np.array_equal(a, b) for a, b in zip(drawn, read, strict=True))
    # The file shows the colours as they are: OpenCV reads BGR.
    shown = cv2.imread(str(tmp_path / 'out/jpeg_compression/2/0.png'))
    assert np.array_equal(shown[..., ::-1], read[0])


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize('shape', [(33, 35), (33, 35, 1), (33, 35, 3)])
def test_without_loss(dtype, shape, tmp_path):
    image = (np.random.default_rng(0).random(shape) * 200 * (dtype != np.uint16 or 300)).astype(
        dtype
    )
    path = tmp_path / ('x.png' if np.dtype(dtype).kind == 'u' else 'x.npy')
    back = decode(encode(image), path)
    assert back.dtype == dtype
    assert np.array_equal(back.reshape(shape), image)


def test_several_processes_and_subsets_write_the_same(root, tmp_path):
    make_corrupted(loader_of(root), 'mmdet', tmp_path / 'once', CONDITIONS)
    for condition in CONDITIONS[::-1]:
        make_corrupted(loader_of(root), 'mmdet', tmp_path / 'twice', [condition], workers=2)
    once, twice = files(tmp_path / 'once'), files(tmp_path / 'twice')
    assert once.keys() == twice.keys()
    for name, content in once.items():
        if name.suffix == '.json':
            a, b = json.loads(content), json.loads(twice[name])
            assert a == b
            assert a['conditions'] == {'gaussian_noise': [3], 'jpeg_compression': [2]}
        else:
            assert content == twice[name]


def test_killed_and_gone_on_with(root, tmp_path, monkeypatch):
    folder, written = tmp_path / 'out', []
    # The room exports the function under the same name.
    module = sys.modules['mmfeataug.datasets.make_corrupted']
    write = module.write_at_once

    def die(path, content):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, 'write_at_once', die)
        make_corrupted(loader_of(root), 'mmdet', folder, CONDITIONS)
    with pytest.raises(ValueError, match=r'lacks images of jpeg_compression 2: .*make_corrupted'):
        images(loader_of(root), CONDITIONS[1], folder)
    before = {path: path.stat().st_mtime_ns for path in written}
    assert make_corrupted(loader_of(root), 'mmdet', folder, CONDITIONS) == 3
    assert before == {path: path.stat().st_mtime_ns for path in written}
    make_corrupted(loader_of(root), 'mmdet', tmp_path / 'whole', CONDITIONS)
    assert files(folder) == files(tmp_path / 'whole')
    assert make_corrupted(loader_of(root), 'mmdet', folder, CONDITIONS) == 0


def test_refuses_other_images(root, tmp_path):
    folder, noise = tmp_path / 'out', CONDITIONS[:1]
    with pytest.raises(ValueError, match=r'has no manifest.json: make the copies by python tools/'):
        LoadCorrupted(str(folder), *noise[0])
    make_corrupted(loader_of(root), 'mmdet', folder, noise)
    # Loaded otherwise.
    grey = dict(color_type='grayscale')
    with pytest.raises(ValueError, match='loaded otherwise'):
        images(loader_of(root, **grey), noise[0], folder)
    with pytest.raises(ValueError, match='4 differ'):
        make_corrupted(loader_of(root, **grey), 'mmdet', folder, noise)
    # One more, which may have the end of its path in common with another.
    shutil.copy(root / '2.png', root / 'b/2.png')
    listed = dict(metainfo={}, data_list=[dict(img_path=n) for n in (*NAMES, 'd/3.png', 'b/2.png')])
    (root / 'd').mkdir()
    shutil.copy(root / '2.png', root / 'd/3.png')
    (root / 'list.json').write_text(json.dumps(listed))
    with pytest.raises(ValueError, match=r'no copies of .*d/3.png: it was made from another test'):
        images(loader_of(root), noise[0], folder)
    with pytest.raises(ValueError, match='another test set'):
        make_corrupted(loader_of(root), 'mmdet', folder, noise)
    # Another image under the name.
    cv2.imwrite(str(root / NAMES[0]), np.zeros((40, 50, 3), np.uint8))
    with pytest.raises(ValueError, match=r'made from another a/0001\.png'):
        images(loader_of(root), noise[0], folder)


def test_a_missing_file_and_another_library(root, tmp_path):
    folder, noise = tmp_path / 'out', CONDITIONS[0]
    make_corrupted(loader_of(root), 'mmdet', folder, [noise])
    gone = folder / 'gaussian_noise/3/b/0001.png.png'
    content = gone.read_bytes()
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=r'--corruptions gaussian_noise --severities 3'):
        images(loader_of(root), noise, folder)
    gone.write_bytes(content[:100])
    with pytest.raises(ValueError, match='delete it and make it again'):
        images(loader_of(root), noise, folder)
    path = folder / 'manifest.json'
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(dict(manifest, library={'imagecorruptions': '0.1'})))
    with pytest.raises(ValueError, match=r'was made by imagecorruptions 0\.1, here is'):
        LoadCorrupted(str(folder), *noise)


def test_another_kornia(root, tmp_path):
    pytest.importorskip('kornia')
    folder, path = tmp_path / 'out', tmp_path / 'out' / 'manifest.json'
    make_corrupted(loader_of(root), 'mmdet', folder, CONDITIONS[:1])
    manifest = json.loads(path.read_text())
    manifest['library']['kornia'] = '0.1'
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r'kornia 0\.1, here is'):
        LoadCorrupted(str(folder), *CONDITIONS[0])


def test_names_that_could_be_taken_for_others(tmp_path, root):
    """A folder within one of the same name."""
    (root / 'set').mkdir()
    shutil.copy(root / NAMES[0], root / 'set/2.png')
    listed = dict(metainfo={}, data_list=[dict(img_path=n) for n in ('2.png', 'set/2.png')])
    (root / 'list.json').write_text(json.dumps(listed))
    with pytest.raises(ValueError, match='could be taken for'):
        make_corrupted(loader_of(root), 'mmdet', tmp_path / 'out', CONDITIONS[:1])


def test_an_image_that_cannot_be_used_is_named(root, tmp_path):
    cv2.imwrite(str(root / NAMES[2]), np.zeros((20, 50, 3), np.uint8))
    for workers in (0, 1):
        with pytest.raises(ValueError, match=r'b/c/0001\.png cannot be used: ValueError: Corrupt'):
            make_corrupted(loader_of(root), 'mmdet', tmp_path / 'out', CONDITIONS, workers)
