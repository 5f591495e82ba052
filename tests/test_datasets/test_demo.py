# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import hashlib
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmfeataug.datasets import make_demo_data
from mmfeataug.datasets.demo import MARKER, THINGS, imagenet
from mmfeataug.datasets.demo.coco import categories, polygons
from mmfeataug.datasets.demo.render import render
from mmfeataug.datasets.demo.scenes import sample_scene

TRAIN, VAL, SIZE = 8, 4, (224, 160)
LOAD = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp('demo'), train=TRAIN, val=VAL, size=SIZE)


def digest(root):
    files = sorted(path for path in Path(root).rglob('*') if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def pictures(split, count):
    return [render(sample_scene(0, split, index, SIZE)) for index in range(count)]


class TestScenes:
    def test_same_arguments_same_scene_in_any_order(self):
        late, other = render(sample_scene(0, 'train', 3, SIZE)), sample_scene(0, 'train', 0, SIZE)
        again = render(sample_scene(0, 'train', 3, SIZE))
        np.testing.assert_array_equal(late.image, again.image)
        assert not np.array_equal(late.image, render(other).image)

    def test_splits_and_seeds_differ(self):
        images = [
            render(sample_scene(*key, 0, SIZE)).image
            for key in ((0, 'train'), (0, 'val'), (1, 'train'))
        ]
        assert not np.array_equal(images[0], images[1])
        assert not np.array_equal(images[0], images[2])

    def test_global_random_state_is_untouched(self):
        np.random.seed(3)
        expected = np.random.random()
        np.random.seed(3)
        render(sample_scene(0, 'train', 0, SIZE))
        assert np.random.random() == expected

    def test_things_are_boxed_tightly_visible_and_inside(self):
        for picture in pictures('train', 20):
            things = picture.things()
            assert 1 <= len(things) <= 4
            for thing in things:
                x0, y0, x1, y1 = thing.box
                assert 0 <= x0 < x1 <= SIZE[0]
                assert 0 <= y0 < y1 <= SIZE[1]
                assert 0.6 <= thing.visible <= 1
                rows, columns = np.nonzero(thing.mask)
                assert (columns.min(), rows.min()) == (x0, y0)
                assert (columns.max() + 1, rows.max() + 1) == (x1, y1)

    def test_every_class_is_drawn(self):
        names = {thing.name for picture in pictures('train', 20) for thing in picture.things()}
        assert names == set(THINGS)


class TestMaskCodes:
    @pytest.fixture(params=['blob', 'hole', 'two_holes', 'parts', 'diagonal', 'pixel', 'full'])
    def mask(self, request):
        mask = np.zeros((20, 30), bool)
        if request.param == 'full':
            mask[:] = True
        elif request.param == 'pixel':
            mask[7, 5] = True
        elif request.param == 'diagonal':
            mask[range(10), range(10)] = True
        else:
            mask[3:17, 4:25] = True
            mask[3, 4:9] = False
        if 'hole' in request.param:
            mask[8:12, 8:11] = False
        if request.param == 'two_holes':
            mask[6:10, 9:20:5] = False
        if request.param == 'parts':
            mask[:, 10:13] = False
        return mask

    def test_polygons_fill_the_mask_again(self, mask):
        coco_mask = pytest.importorskip('pycocotools.mask')
        rles = coco_mask.frPyObjects(polygons(mask), *mask.shape)
        np.testing.assert_array_equal(coco_mask.decode(coco_mask.merge(rles)), mask)


class TestFiles:
    def test_deterministic_byte_for_byte(self, folders, tmp_path):
        layouts = ('imagenet', 'cityscapes', 'coco', 'voc')
        again = make_demo_data(tmp_path / 'b', train=TRAIN, val=VAL, size=SIZE, layouts=layouts)
        for layout, folder in folders.items():
            assert digest(folder) == digest(again[layout])

    def test_finished_set_is_left_alone_and_layouts_are_added(self, tmp_path):
        settings = dict(train=2, val=1, size=(64, 64))
        first = make_demo_data(tmp_path, layouts=['coco'], **settings)
        image = next(Path(first['coco']).rglob('*.jpg'))
        image.write_bytes(b'mine')
        both = make_demo_data(tmp_path, layouts=['coco', 'voc'], **settings)
        assert image.read_bytes() == b'mine'
        assert Path(both['voc'], 'VOC2007/ImageSets/Main/trainval.txt').is_file()

    def test_interrupted_layout_is_written_again(self, tmp_path):
        settings = dict(train=2, val=1, size=(64, 64), layouts=['coco'])
        folder = make_demo_data(tmp_path, **settings)['coco']
        expected = digest(folder)
        marker = json.loads((tmp_path / MARKER).read_text())
        (tmp_path / MARKER).write_text(json.dumps(dict(marker, layouts=[])))
        next(Path(folder).rglob('*.jpg')).unlink()
        make_demo_data(tmp_path, **settings)
        assert digest(folder) == expected

    def test_foreign_folder_is_refused(self, tmp_path):
        (tmp_path / 'thesis.tex').write_text('')
        with pytest.raises(FileExistsError, match='not empty'):
            make_demo_data(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']

    def test_other_demo_set_is_refused(self, tmp_path):
        make_demo_data(tmp_path, train=2, val=1, size=(64, 64), layouts=['coco'])
        with pytest.raises(FileExistsError, match="'seed': 1"):
            make_demo_data(tmp_path, train=2, val=1, size=(64, 64), seed=1)

    @pytest.mark.parametrize(
        ('setting', 'message'),
        [
            (dict(train=1), 'train=1'),
            (dict(val=0), 'val=0'),
            (dict(size=(63, 64)), '64 pixels'),
            (dict(seed=-1), 'seed=-1'),
            (dict(layouts=['voc', 'lvis']), "'lvis'"),
            (dict(layouts=[]), 'one or more'),
            (dict(layouts='voc'), 'give a list'),
        ],
    )
    def test_bad_settings_are_named(self, tmp_path, setting, message):
        with pytest.raises(ValueError, match=message):
            make_demo_data(tmp_path, **setting)
        assert not list(tmp_path.iterdir())

    def test_cityscapes_maps_agree(self, folders):
        root = Path(folders['cityscapes']) / 'gtFine'
        files = sorted(root.rglob('*_gtFine_labelIds.png'))
        assert len(files) == TRAIN + VAL
        for path in files:
            stem = str(path).replace('labelIds.png', '')
            ids, train_ids, instances = (
                cv2.imread(f'{stem}{kind}.png', cv2.IMREAD_UNCHANGED)
                for kind in ('labelIds', 'labelTrainIds', 'instanceIds')
            )
            assert set(np.unique(ids)) <= {4, 7, 11, 17, 21, 23, 24, 26, 28}
            assert set(np.unique(train_ids)) <= {*range(19), 255}
            assert len(np.unique(np.int32(256) * ids + train_ids)) == len(np.unique(ids))
            things = instances >= 1000
            np.testing.assert_array_equal(np.where(things, instances // 1000, instances), ids)

    def test_voc_boxes_count_from_one_and_masks_have_borders(self, folders):
        from PIL import Image

        root = Path(folders['voc']) / 'VOC2012'
        for number, picture in enumerate(pictures('train', TRAIN), start=1):
            boxes = [
                [int(node.text) for node in box]
                for box in ET.parse(root / f'Annotations/2012_{number:06d}.xml').iter('bndbox')
            ]
            assert boxes == [[t.box[0] + 1, t.box[1] + 1, *t.box[2:]] for t in picture.things()]
            bordered, plain = (
                Image.open(root / folder / f'2012_{number:06d}.png')
                for folder in ('SegmentationClass', 'SegmentationClassAug')
            )
            assert bordered.mode == 'P'
            assert bordered.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
            bordered, plain = np.array(bordered), np.array(plain)
            assert set(np.unique(plain)) <= {0, 6, 7, 15}
            assert 0.01 < (bordered == 255).mean() < 0.3
            np.testing.assert_array_equal(bordered[bordered != 255], plain[bordered != 255])

    def test_imagenet_has_a_picture_of_each_thing(self, folders):
        for split, count in (('train', TRAIN), ('val', VAL)):
            expected = [
                f'{thing.name}/{picture.scene.number:06d}_{index}.png'
                for picture in pictures(split, count)
                for index, thing in enumerate(picture.things())
            ]
            root = Path(folders['imagenet'], split)
            assert sorted(p.relative_to(root).as_posix() for p in root.rglob('*.png')) == sorted(
                expected
            )
        image = cv2.imread(str(next(root.rglob('*.png'))))
        assert image.shape == (64, 64, 3)

    def test_cut_out_has_the_thing_in_the_middle(self):
        image = np.zeros((50, 80, 3), np.uint8)
        image[10:30, 40:80] = 200
        square = imagenet.cut_out(image, (40, 10, 80, 30))
        assert square.shape == (64, 64, 3)
        # 50 pixels wide: 20 of the thing's lines are 26 of 64, its columns go on beyond the border.
        assert square[32, 8:, 0].min() == 200
        assert square[8, 32, 0] == square[54, 32, 0] == 0
        assert abs(int((square[:, 32, 0] > 100).sum()) - 26) <= 1

    def test_coco_lists_the_official_categories(self):
        found = {category['id']: category['name'] for category in categories()}
        assert len(found) == 80
        assert (found[1], found[13], found[44], found[67], found[90]) == (
            'person',
            'stop sign',
            'bottle',
            'dining table',
            'toothbrush',
        )


class TestStockDetection:
    @pytest.fixture(autouse=True)
    def mmdet(self):
        return pytest.importorskip('mmdet.datasets')

    def check(self, dataset, count, names):
        assert len(dataset) == count
        found = set()
        for index in range(count):
            info = dataset.get_data_info(index)
            assert Path(info['img_path']).is_file()
            assert (info['width'], info['height']) == SIZE
            for instance in info['instances']:
                x0, y0, x1, y1 = instance['bbox']
                assert 0 <= x0 < x1 <= SIZE[0]
                assert 0 <= y0 < y1 <= SIZE[1]
                found.add(dataset.metainfo['classes'][instance['bbox_label']])
        assert found == set(names)

    @pytest.mark.parametrize(
        ('year', 'name', 'count'),
        [
            ('VOC2007', 'trainval', TRAIN // 2),
            ('VOC2012', 'trainval', TRAIN // 2),
            ('VOC2007', 'test', VAL),
        ],
    )
    @pytest.mark.parametrize('metainfo', [None, dict(classes=THINGS)])
    def test_voc(self, mmdet, folders, year, name, count, metainfo):
        dataset = mmdet.VOCDataset(
            data_root=folders['voc'] + '/',
            ann_file=f'{year}/ImageSets/Main/{name}.txt',
            data_prefix=dict(sub_data_root=f'{year}/'),
            metainfo=metainfo,
            pipeline=[],
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
        )
        self.check(dataset, count, THINGS)

    def test_voc_0712_sees_each_training_scene_once(self, folders):
        stems = [
            Path(folders['voc'], f'{year}/ImageSets/Main/trainval.txt').read_text().split()
            for year in ('VOC2007', 'VOC2012')
        ]
        numbers = [int(stem.split('_')[-1]) for year in stems for stem in year]
        assert sorted(numbers) == list(range(1, TRAIN + 1))

    @pytest.mark.parametrize(
        ('layout', 'annotations', 'images'),
        [
            ('coco', 'instances_{}2017.json', '{}2017/'),
            ('cityscapes', 'instancesonly_filtered_gtFine_{}.json', 'leftImg8bit/{}/'),
        ],
    )
    @pytest.mark.parametrize(('split', 'count'), [('train', TRAIN), ('val', VAL)])
    def test_coco_style(self, mmdet, folders, layout, annotations, images, split, count):
        kind = dict(coco=mmdet.CocoDataset, cityscapes=mmdet.CityscapesDataset)[layout]
        dataset = kind(
            data_root=folders[layout] + '/',
            ann_file='annotations/' + annotations.format(split),
            data_prefix=dict(img=images.format(split)),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
            ],
        )
        self.check(dataset, count, THINGS)
        for item, picture in zip(dataset, pictures(split, count), strict=True):
            things = picture.things()
            names = [dataset.metainfo['classes'][label] for label in item['gt_bboxes_labels']]
            assert names == [thing.name for thing in things]
            np.testing.assert_array_equal(item['gt_bboxes'].tensor, [t.box for t in things])
            np.testing.assert_array_equal(item['gt_masks'].masks, [t.mask for t in things])


class TestStockSegmentation:
    @pytest.fixture(autouse=True)
    def mmseg(self):
        return pytest.importorskip('mmseg.datasets')

    def check(self, dataset, count, ids):
        assert len(dataset) == count
        found = set()
        for item in dataset:
            assert item['img'].shape[:2] == item['gt_seg_map'].shape == SIZE[::-1]
            found |= set(np.unique(item['gt_seg_map']).tolist())
        assert found == ids

    @pytest.mark.parametrize(
        ('name', 'folder', 'count', 'void'),
        [
            ('train', 'SegmentationClass', TRAIN, {255}),
            ('val', 'SegmentationClass', VAL, {255}),
            ('aug', 'SegmentationClassAug', TRAIN, set()),
        ],
    )
    def test_voc(self, mmseg, folders, name, folder, count, void):
        dataset = mmseg.PascalVOCDataset(
            data_root=folders['voc'] + '/VOC2012',
            ann_file=f'ImageSets/Segmentation/{name}.txt',
            data_prefix=dict(img_path='JPEGImages', seg_map_path=folder),
            pipeline=LOAD,
        )
        self.check(dataset, count, {0, 6, 7, 15} | void)
        assert [dataset.metainfo['classes'][k] for k in (6, 7, 15)] == ['bus', 'car', 'person']

    @pytest.mark.parametrize(('split', 'count'), [('train', TRAIN), ('val', VAL)])
    def test_cityscapes(self, mmseg, folders, split, count):
        dataset = mmseg.CityscapesDataset(
            data_root=folders['cityscapes'],
            pipeline=LOAD,
            data_prefix=dict(img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}'),
        )
        self.check(dataset, count, {0, 2, 5, 8, 10, 11, 13, 15, 255})
        names = [dataset.metainfo['classes'][k] for k in (0, 2, 5, 8, 10, 11, 13, 15)]
        assert names == ['road', 'building', 'pole', 'vegetation', 'sky', 'person', 'car', 'bus']


@pytest.mark.classification
@pytest.mark.parametrize(('split', 'count'), [('train', TRAIN), ('val', VAL)])
def test_stock_classification(folders, split, count):
    pytest.importorskip('torchvision')
    datasets = pytest.importorskip('mmpretrain.datasets')
    dataset = datasets.CustomDataset(data_root=folders['imagenet'], data_prefix=split)
    assert list(dataset.CLASSES) == sorted(THINGS)
    assert len(dataset) == sum(len(picture.things()) for picture in pictures(split, count))
