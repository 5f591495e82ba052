# The test bed `camvid-240` with three times the iterations.
_base_ = './camvid-240.py'
max_iters = 2400
_base_.param_scheduler[1].end = max_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
