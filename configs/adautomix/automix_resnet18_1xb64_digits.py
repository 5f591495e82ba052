# The generator always lowers the loss of the teacher.
_base_ = './adautomix_resnet18_1xb64_digits.py'
_base_.model.augmentations[0].adversarial = False
