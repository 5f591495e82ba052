# For detectors, see docs/results.md: the view of afan.py, and one distortion of each image. In a
# fifth of the steps the view keeps its gain on clean images: _base_.custom_hooks[-1].prob = 0.2
_base_ = './afan.py'
_base_.custom_hooks[-1].augmentations.append(dict(type='mmfeataug.DistortImages'))
