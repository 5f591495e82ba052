# For detectors, see docs/results.md: the view of afan.py, and one distortion of each image. For a
# step of 1.15 times the price (scores not measured): _base_.custom_hooks[-1].budget = 1.15
_base_ = './afan.py'
_base_.custom_hooks[-1].augmentations.append(dict(type='mmfeataug.DistortImages'))
