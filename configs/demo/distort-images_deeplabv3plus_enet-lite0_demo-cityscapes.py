_base_ = ['./deeplabv3plus_enet-lite0_demo-cityscapes.py', '../_base_/methods/distort-images.py']
