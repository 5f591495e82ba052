# The classifier learns from the view alone, as in the release; the clean loss has a weight, because
# the attack starts from its gradient.
_base_ = ['../baseline/resnet18-linear_1xb64_digits.py', '../_base_/methods/sea.py']
_base_.custom_hooks[-1].clean_weight = 1e-4
_base_.custom_hooks[-1].augmentations[0].weight = 1.0
