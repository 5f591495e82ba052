# Goes on from the baseline's checkpoint at a tenth of its learning rate: train that first, or set
# load_from. What methods that fine-tune are to be compared with.
_base_ = './resnet18_1xb64_digits.py'
load_from = 'work_dirs/resnet18_1xb64_digits/epoch_8.pth'
train_cfg = dict(max_epochs=4, val_interval=4)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=4, by_epoch=True, convert_to_iter_based=True)
]
