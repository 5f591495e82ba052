# PASCAL VOC 2012 plus the SBD masks (10,582 images): `aug.txt` and `SegmentationClassAug` come from
# mmseg's converter tools/dataset_converters/voc_aug.py.
_base_ = './pascal_voc12.py'
dataset_train = _base_.train_dataloader.dataset
dataset_aug = dict(
    type='PascalVOCDataset',
    data_root=_base_.data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
    ann_file='ImageSets/Segmentation/aug.txt',
    pipeline=_base_.train_pipeline,
)
train_dataloader = dict(
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=[dataset_train, dataset_aug])
)
