_base_ = ['./deeplabv3plus_enet-lite0_demo-cityscapes.py', '../_base_/methods/distort-images.py']
_base_.custom_hooks[-1].augmentations[0].update(prob=0.5)
