# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader, Dataset

from mmfeataug.datasets import Corrupt
from mmfeataug.datasets.corrupt import corrupt_image
from mmfeataug.registry import TRANSFORMS
from mmfeataug.utils.corruptions import ALL, BENCHMARK, FAMILIES

# glass_blur compiles for seconds at its first call, so it has one test of its own.
QUICK = tuple(name for name in ALL if name != 'glass_blur')
DRAWING = (
    'gaussian_noise',
    'shot_noise',
    'impulse_noise',
    'motion_blur',
    'snow',
    'frost',
    'fog',
    'elastic_transform',
    'speckle_noise',
    'spatter',
)


@pytest.fixture
def image():
    y, x = np.mgrid[:60, :80]
    waves = [127 + 100 * np.sin(x / a + y / b) for a, b in ((4, 9), (7, 3), (11, 5))]
    return np.stack(waves, axis=-1).astype(np.uint8)


class Mapped(Dataset):
    def __init__(self, samples, transform):
        self.samples, self.transform = samples, transform

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.transform(dict(self.samples[index]))['img']


def run(image, corruption, severity=3, **keys):
    results = dict(img=image.copy(), **(keys or dict(img_path='data/a/0001.jpg')))
    return Corrupt(corruption, severity)(results)['img']


@pytest.fixture
def library():
    return pytest.importorskip('imagecorruptions')


class TestValues:
    def test_names_are_the_library_s(self, library):
        assert list(BENCHMARK) == library.get_corruption_names('common')
        assert list(FAMILIES['extra']) == library.get_corruption_names('validation')

    @pytest.mark.parametrize('corruption', QUICK)
    @pytest.mark.parametrize('severity', [1, 5])
    def test_image_keeps_shape_and_dtype_and_changes(self, library, image, corruption, severity):
        corrupted = run(image, corruption, severity)
        assert corrupted.shape == image.shape
        assert corrupted.dtype == np.uint8
        assert corrupted.flags.c_contiguous
        assert not np.array_equal(corrupted, image)

    @pytest.mark.parametrize(
        'corruption', [n for n in QUICK if n not in ('impulse_noise', *FAMILIES['unseen'])]
    )
    def test_equals_the_library_on_rgb_with_the_same_seed(self, library, image, corruption):
        transform = Corrupt(corruption, 2)
        results = dict(img=image.copy(), img_path='x.jpg')
        np.random.seed(transform.seed(results))
        rgb = np.ascontiguousarray(image[..., ::-1])
        expected = library.corrupt(rgb, severity=2, corruption_name=corruption)[..., ::-1]
        np.testing.assert_array_equal(transform(results)['img'], expected)

    def test_images_may_be_rgb_already(self, library, image):
        """As those that data sets like CIFAR bring along, under a number instead of a name."""
        rgb = Corrupt('frost', 3, rgb=True)(dict(img=image[..., ::-1], sample_idx=7))['img']
        np.testing.assert_array_equal(rgb[..., ::-1], run(image, 'frost', img_id=7))
        assert rgb.flags.c_contiguous

    def test_float_images_keep_their_dtype(self, library, image):
        as_float = run(image.astype(np.float32), 'contrast')
        assert as_float.dtype == np.float32
        np.testing.assert_array_equal(as_float, run(image, 'contrast'))

    def test_severity_zero_is_the_same_object(self, image):
        results = dict(img=image)
        assert Corrupt('fog', 0)(results)['img'] is image


class TestRandomness:
    @pytest.mark.parametrize('corruption', QUICK)
    def test_same_image_same_pixels_whatever_was_drawn_before(self, library, image, corruption):
        first = run(image, corruption)
        np.random.seed(99)
        np.testing.assert_array_equal(run(image, corruption), first)

    @pytest.mark.parametrize('corruption', DRAWING)
    def test_file_name_counts_and_folder_does_not(self, library, image, corruption):
        first = run(image, corruption)
        moved = run(image, corruption, img_path='/elsewhere/0001.jpg', img_id=7)
        np.testing.assert_array_equal(moved, first)
        assert not np.array_equal(run(image, corruption, img_path='data/a/0002.jpg'), first)

    def test_glass_blur_is_seeded_too(self, library, image):
        first = run(image, 'glass_blur')
        np.testing.assert_array_equal(run(image, 'glass_blur'), first)
        assert not np.array_equal(run(image, 'glass_blur', img_path='other.jpg'), first)

    def test_seeds_stay(self, library):
        """Tables of other versions were made with these."""
        fog = Corrupt('fog', 3)
        assert fog.seed(dict(img_path='a/x.jpg', img_id=1)) == 1055016918
        # A number is taken whole.
        assert fog.seed(dict(img_path=None, img_id='7/8')) == 1342342871

    def test_image_id_stands_in_for_a_path(self, library, image):
        first = run(image, 'shot_noise', img_id=1)
        np.testing.assert_array_equal(run(image, 'shot_noise', img_id=1, img_path=None), first)
        assert not np.array_equal(run(image, 'shot_noise', img_id=2), first)

    @pytest.mark.parametrize('corruption', QUICK)
    def test_global_stream_goes_on_as_if_nothing_happened(self, library, image, corruption):
        np.random.seed(5)
        expected = np.random.random(3)
        np.random.seed(5)
        run(image, corruption)
        np.testing.assert_array_equal(np.random.random(3), expected)

    def test_workers_make_no_difference(self, library, image):
        samples = [dict(img=image, img_path=f'{k}.jpg') for k in range(4)]
        for corruption in ('gaussian_noise', 'impulse_noise'):
            transform = Corrupt(corruption, 2)
            alone, shared = (
                list(DataLoader(Mapped(samples, transform), batch_size=None, num_workers=workers))
                for workers in (0, 2)
            )
            np.testing.assert_array_equal(np.stack(alone), np.stack(shared))

    def test_global_stream_is_restored_after_an_error(self, library):
        np.random.seed(5)
        expected = np.random.random(3)
        np.random.seed(5)
        with pytest.raises(AttributeError):
            corrupt_image(np.zeros((8, 8, 3), np.uint8), 'fog', 1, seed=0)
        np.testing.assert_array_equal(np.random.random(3), expected)


class TestPipeline:
    def test_registered_and_picklable(self, library, image):
        transform = TRANSFORMS.build(dict(type='mmfeataug.Corrupt', corruption='fog', severity=2))
        assert repr(transform) == "Corrupt(corruption='fog', severity=2)"
        results = dict(img=image, img_path='a.jpg')
        expected = transform(dict(results))['img']
        copy = pickle.loads(pickle.dumps(transform))
        np.testing.assert_array_equal(copy(dict(results))['img'], expected)

    @pytest.mark.parametrize(
        'scope',
        ['mmdet', 'mmseg', pytest.param('mmpretrain', marks=pytest.mark.classification)],
    )
    def test_after_the_stock_loader(self, library, image, tmp_path, scope):
        if scope == 'mmpretrain':
            pytest.importorskip('torchvision')
        pytest.importorskip(f'{scope}.datasets')
        path = str(tmp_path / 'a.png')
        cv2.imwrite(path, image)
        with DefaultScope.overwrite_default_scope(scope):
            pipeline = Compose(
                [
                    dict(type='LoadImageFromFile'),
                    dict(type='mmfeataug.Corrupt', corruption='fog', severity=2),
                ]
            )
        np.testing.assert_array_equal(
            pipeline(dict(img_path=path))['img'], run(image, 'fog', 2, img_path='a.png')
        )

    def test_importing_the_package_imports_no_framework(self):
        heavy = ('mmdet', 'mmseg', 'mmpretrain', 'imagecorruptions', 'numba', 'skimage')
        code = f'import sys, mmfeataug.datasets; print([m for m in {heavy} if m in sys.modules])'
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
        assert done.stdout.strip() == '[]', done.stderr


class TestErrors:
    def test_unknown_corruption_lists_the_names(self):
        with pytest.raises(ValueError, match=r"'sleet' is unknown.*gaussian_noise.*saturate"):
            Corrupt('sleet')

    @pytest.mark.parametrize('severity', [-1, 6, 2.5, '3', None])
    def test_severity_out_of_range(self, severity):
        with pytest.raises(ValueError, match='severity='):
            Corrupt('fog', severity)

    def test_missing_library_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, 'imagecorruptions', None)
        with pytest.raises(ImportError, match=r'pip install mmfeataug\[robustness\]'):
            Corrupt('fog')
        Corrupt('fog', 0)

    def test_nameless_image(self, library, image):
        with pytest.raises(ValueError, match='img_path'):
            Corrupt('fog')(dict(img=image))

    @pytest.mark.parametrize('shape', [(60, 80, 2), (60, 80, 4), (31, 80, 3), (31, 80)])
    def test_wrong_shape(self, library, shape):
        with pytest.raises(ValueError, match='1 or 3 channels and at least 32'):
            run(np.zeros(shape, np.uint8), 'fog')

    def test_normalised_image(self, library, image):
        with pytest.raises(ValueError, match='right after LoadImageFromFile'):
            run(image / 128.0 - 1, 'fog')


@pytest.mark.parametrize('image_range', [(0, 63.75), (8, 64), (-1, 70)])
def test_a_narrow_range_of_bytes(image, image_range):
    """Is that of the image as of one in floating point."""
    dark = (image // 4).astype(np.uint8)
    step = Corrupt('brightness', 2, image_range=image_range)
    found = step(dict(img=dark, img_path='a.jpg'))['img']
    expected = step(dict(img=dark.astype(np.float32), img_path='a.jpg'))['img']
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.rint(expected).clip(0, 255))
    assert found.mean() > dark.mean()
    with pytest.raises(ValueError, match=r'image_range=\(100, 0\): give the smallest'):
        Corrupt('brightness', 2, image_range=(100, 0))
