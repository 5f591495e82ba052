# The test bed `digits` with four times the epochs.
_base_ = './digits.py'
_base_.param_scheduler[1].T_max = _base_.param_scheduler[1].end = 32
train_cfg = dict(max_epochs=32)
