# The test bed `camvid` with three times the iterations.
_base_ = './camvid.py'
max_iters = 3600
_base_.param_scheduler[1].end = max_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
