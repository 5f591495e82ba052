# CamVid at half of its size, 800 iterations.
_base_ = './camvid-360.py'
crop_size = (128, 176)
model = dict(data_preprocessor=dict(size=crop_size))
_base_.train_dataloader.dataset.pipeline[2].scale = (240, 180)
_base_.train_dataloader.dataset.pipeline[3].crop_size = crop_size
_base_.test_dataloader.dataset.pipeline[1].scale = (240, 180)
max_iters = 800
_base_.param_scheduler[1].end = max_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
