_base_ = ['../baseline/finetune_resnet18_1xb64-4e_digits.py', '../_base_/methods/fma.py']
