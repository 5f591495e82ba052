# Views of statistics: plain ones need a longer training than this from random weights.
_base_ = ['../baseline/resnet18_1xb64_digits.py', '../_base_/methods/afan.py']
_base_.custom_hooks[-1].augmentations[0].update(reinject=True, axes='spatial', gamma=0.5)
