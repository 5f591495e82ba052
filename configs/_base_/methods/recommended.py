# For detectors, see docs/results.md: one distortion of each image, and in a fifth of the steps the
# view of afan.py; about 1.2 stock steps. Views in each step: _base_.custom_hooks[-1].prob = 1.0
_base_ = './afan.py'
_base_.custom_hooks[-1].prob = 0.2
_base_.custom_hooks[-1].augmentations.append(dict(type='mmfeataug.DistortImages'))
