# CamVid at half of its size, 800 iterations: short for a network that has to see whole scenes.
_base_ = './camvid.py'
crop_size = (128, 176)
model = dict(data_preprocessor=dict(size=crop_size))
_base_.train_dataloader.dataset.pipeline[2].scale = (240, 180)
_base_.train_dataloader.dataset.pipeline[3].crop_size = crop_size
_base_.test_dataloader.dataset.pipeline.insert(
    1, dict(type='Resize', scale=(240, 180), keep_ratio=True)
)
max_iters = 800
_base_.param_scheduler[1].end = max_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
