# CamVid at three quarters of its size: a training of ten to twenty minutes on one CPU core.
_base_ = './camvid.py'
crop_size = (192, 256)
model = dict(data_preprocessor=dict(size=crop_size))
_base_.train_dataloader.dataset.pipeline[2].scale = (360, 270)
_base_.train_dataloader.dataset.pipeline[3].crop_size = crop_size
_base_.test_dataloader.dataset.pipeline.insert(
    1, dict(type='Resize', scale=(360, 270), keep_ratio=True)
)
