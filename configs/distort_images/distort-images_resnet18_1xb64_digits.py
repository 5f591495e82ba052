_base_ = ['../baseline/resnet18_1xb64_digits.py', '../_base_/methods/distort-images.py']
